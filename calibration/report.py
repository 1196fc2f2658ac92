"""The conversion report: every target and precision of a model, measured in one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

import numpy as np

import edgeface
from edgeface.bundle import PRECISIONS, Bundle
from edgeface.calibration.accuracy import Accuracy, EvaluationData, measure
from edgeface.calibration.gate import PUBLISH, Verdict
from edgeface.calibration.latency import interleaved
from edgeface.calibration.sensitivity import relevant_snr
from edgeface.calibration.trial import RUNNERS, Geometry, Picture, Trial
from edgeface.errors import ModelNotFoundError
from edgeface.evaluation.wider import spread
from edgeface.hardware import host
from edgeface.imageio import read_image
from edgeface.preprocess import InputSize
from edgeface.runtimes.base import BACKENDS, Outputs

Track: TypeAlias = Callable[[Sequence[Any], str], Iterable[Any]]
Key: TypeAlias = tuple[str, bytes]

LONG_SIDE = 640
SIZES: dict[str, int | None] = {"long side 640": LONG_SIDE, "original size": None}
TIMED_FRAME = (640, 480)
SNR_PICTURES = 16
ROUNDS = 60
FP32, QUANTISED = "fp32", "int8"
FORMATS = {
    "onnx": BACKENDS["onnxruntime"].formats,
    "openvino": BACKENDS["openvino"].formats,
    "tflite": BACKENDS["tflite"].formats,
    "tensorrt": BACKENDS["tensorrt"].formats,
}
TOOLS = (
    "torch",
    "onnx",
    "onnxscript",
    "litert-torch",
    "nncf",
    "ai-edge-quantizer",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
)


@dataclass(frozen=True)
class File:
    """An artifact to measure.

    Attributes:
        target: what it is made for: "onnx", "openvino", "tflite" or "tensorrt".
        precision: "fp32", "fp16" or "int8".
        content: the file.
        name: its name in the bundle; "" where the bundle does not hold it.
        input_sizes: (width, height) pairs that it accepts; empty: any.
        batch: frames that it takes at once; None: any number.
    """

    target: str
    precision: str
    content: bytes
    name: str
    input_sizes: tuple[tuple[int, int], ...] = ()
    batch: int | None = None

    @property
    def backend(self) -> str:
        """Who runs it here."""
        return RUNNERS[self.target]


@dataclass(frozen=True)
class Row:
    """One target at one precision.

    Attributes:
        file: the artifact.
        runtime: name and version of what ran it.
        snr_db: scores, boxes and landmarks against fp32 in ONNX Runtime, in dB.
        milliseconds: median of the network alone, 640 x 480, one thread.
        fp32_milliseconds: the same runtime's fp32 in the same rounds.
        verdicts: accuracy beside fp32's in ONNX Runtime, by operating point that was measured.
    """

    file: File
    runtime: str
    snr_db: Mapping[str, float]
    milliseconds: float
    fp32_milliseconds: float
    verdicts: Mapping[str, Verdict]

    @property
    def passed(self) -> bool:
        """Whether it keeps to the gate's bounds at every operating point."""
        return all(verdict.within(PUBLISH) for verdict in self.verdicts.values())

    @property
    def speed(self) -> float:
        """How many times as fast as the same runtime's fp32."""
        return self.fp32_milliseconds / self.milliseconds

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; None stands for infinity."""
        return {
            "target": self.file.target,
            "precision": self.file.precision,
            "runtime": self.runtime,
            "file": self.file.name or None,
            "bytes": len(self.file.content),
            "snr_db": {
                kind: round(value, 2) if math.isfinite(value) else None
                for kind, value in self.snr_db.items()
            },
            "milliseconds": round(self.milliseconds, 3),
            "times_as_fast_as_fp32": round(self.speed, 3),
            "accuracy": {
                size: {**verdict.to_dict(), "within_bounds": verdict.within(PUBLISH)}
                for size, verdict in self.verdicts.items()
            },
        }


@dataclass(frozen=True)
class ConversionReport:
    """What was measured, and of what.

    Attributes:
        model: name of the model.
        weights: sha256 of the weights.
        calibration: sha256 of the calibration manifest; "" where nothing was calibrated.
        machine: the processor.
        tools: versions by package.
        data: the evaluation data, in words.
        rows: by target and precision.
    """

    model: str
    weights: str
    calibration: str
    machine: str
    tools: Mapping[str, str]
    data: str
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "model": self.model,
            "weights_sha256": self.weights,
            "calibration_sha256": self.calibration or None,
            "machine": self.machine,
            "tools": dict(self.tools),
            "data": self.data,
            "rows": [row.to_dict() for row in self.rows],
        }


def bundle_files(bundle: Bundle, others: Mapping[tuple[str, str], bytes]) -> list[File]:
    """List a model's files by target and precision.

    Args:
        bundle: the model.
        others: files that the bundle does not hold but the report shall cover, by target and
            precision.
    """
    files = []
    for target in RUNNERS:
        for precision in PRECISIONS:
            artifact = bundle.best(FORMATS[target], (precision,))
            if (target, precision) in others:
                files.append(File(target, precision, others[target, precision], ""))
            elif artifact is not None:
                content, limits = bundle.open(artifact), (artifact.input_sizes, artifact.batch)
                files.append(File(target, precision, content, artifact.file, *limits))
    return files


def report(
    bundle: Bundle,
    files: Sequence[File],
    data: EvaluationData,
    *,
    sizes: Mapping[str, int | None] = SIZES,
    rounds: int = ROUNDS,
    track: Track = lambda items, _: items,
) -> ConversionReport:
    """Measure files of a model: accuracy, drift and speed.

    A file that serves two targets through the same runtime is measured once. ONNX at fp32, with
    which all are compared, and int8 are measured at every operating point, the others at the first:
    they compute what fp32 computes, up to their rounding.

    Args:
        bundle: the model.
        files: what to measure; ONNX at fp32 must be among them.
        data: pictures that neither training nor calibration saw.
        sizes: operating points: long side in pixels or None for the original size, by name.
        rounds: timed rounds.
        track: shows progress over items with a description.

    Raises:
        ModelNotFoundError: there is no ONNX file at fp32.
        MissingDependencyError: a runtime is not installed.
    """
    geometry = Geometry(bundle.anchors, bundle.pad_value)
    distinct = {(file.backend, file.content): file for file in files}
    fp32 = {file.target: (file.backend, file.content) for file in files if file.precision == FP32}
    if "onnx" not in fp32:
        raise ModelNotFoundError(
            f"expected an ONNX file at fp32 to compare with, got a model '{bundle.name}' without; "
            "export it with the target onnx"
        )
    baseline = fp32["onnx"]
    pictures = [read_image(one.path) for one in spread(data.pictures, SNR_PICTURES)]
    with _trial(distinct[baseline], geometry, LONG_SIDE) as reference:
        drift = {key: _drift(reference, file, geometry, pictures) for key, file in distinct.items()}
    accuracies = {
        (key, size): _accuracy(file, geometry, data, size, long_side, track)
        for key, file in distinct.items()
        for number, (size, long_side) in enumerate(sizes.items())
        if number == 0 or key == baseline or file.precision == QUANTISED
    }
    milliseconds = _latencies(distinct, geometry, pictures[0], rounds)
    rows = []
    for file in files:
        key = (file.backend, file.content)
        runtime, snr = drift[key]
        verdicts = {
            size: Verdict(accuracies[baseline, size], accuracies[key, size])
            for size in sizes
            if (key, size) in accuracies
        }
        fp32_milliseconds = milliseconds[fp32.get(file.target, baseline)]
        rows.append(Row(file, runtime, snr, milliseconds[key], fp32_milliseconds, verdicts))
    weights = bundle.weights
    return ConversionReport(
        model=bundle.name,
        weights=weights.sha256 if weights else "",
        calibration=str(bundle.metadata.get("calibration", {}).get("sha256", "")),
        machine=host().cpu,
        tools=_tools(),
        data=_describe(data),
        rows=tuple(rows),
    )


def _trial(file: File, geometry: Geometry, input_size: InputSize) -> Trial:
    return Trial(file.content, file.backend, geometry, input_size, file.input_sizes, file.batch)


def _drift(
    reference: Trial, file: File, geometry: Geometry, pictures: Sequence[Picture]
) -> tuple[str, dict[str, float]]:
    """What ran a file, and its signal to noise beside the reference."""
    expected: list[Outputs] = []
    got: list[Outputs] = []
    with _trial(file, geometry, LONG_SIDE) as trial:
        for picture in pictures:
            frame, _ = trial.place(picture)
            for outputs, runner in ((expected, reference), (got, trial)):
                outputs.append({name: out.copy() for name, out in runner.infer(frame).items()})
        return f"{file.backend} {trial.version}", relevant_snr(expected, got)


def _accuracy(
    file: File,
    geometry: Geometry,
    data: EvaluationData,
    size: str,
    long_side: int | None,
    track: Track,
) -> Accuracy:
    label = f"{file.target} {file.precision}, {size}"
    with _trial(file, geometry, long_side) as trial:
        return measure(trial, data, lambda items: track(items, label))


def _latencies(
    files: Mapping[Key, File], geometry: Geometry, picture: Picture, rounds: int
) -> dict[Key, float]:
    with ExitStack() as stack:
        calls: dict[Key, Callable[[], object]] = {}
        for key, file in files.items():
            size = file.input_sizes[0] if file.input_sizes else TIMED_FRAME
            trial = stack.enter_context(_trial(file, geometry, size))
            calls[key] = partial(trial.infer, trial.place(picture)[0])
        return interleaved(calls, rounds)


def _tools() -> dict[str, str]:
    versions = {"edgeface": edgeface.__version__}
    for package in TOOLS:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _describe(data: EvaluationData) -> str:
    faces = sum(int((~np.isnan(one.landmarks).any(axis=(1, 2))).sum()) for one in data.labelled)
    return (
        f"{len(data.pictures)} pictures with WIDER FACE's ground truth; landmarks of {faces} faces "
        f"in {len(data.labelled)} others"
    )
