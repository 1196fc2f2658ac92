r"""Calibration methods compared on accuracy, as a Markdown table.

    python benchmarks/calibration.py --data TRAIN --evaluate WIDER --evaluate LABELS \
        --held-out 0.03 --limit 100 --store rows.json > table.md

For every target: each method at one number of pictures; then the target's default method with one
scale per tensor, and at each number of pictures. Accuracy is that of the gate: average precision as
a share of fp32's, and landmark error relative to it. The noise is that of the outputs where
postprocessing reads them. Rows that the store holds are not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeface.bundle import Bundle, load_bundle, write_atomic
from edgeface.calibration import nncf
from edgeface.calibration.accuracy import EvaluationData, load_evaluation_data
from edgeface.calibration.draw import draw
from edgeface.calibration.histogram import METHODS
from edgeface.calibration.publish import Judge
from edgeface.calibration.quantize import (
    DEFAULT_METHOD,
    TARGETS,
    QuantizationOptions,
    quantize,
)
from edgeface.calibration.sensitivity import relevant_snr
from edgeface.calibration.subset import CalibrationSet, Preprocess
from edgeface.calibration.trial import RUNNERS, Geometry, Trial
from edgeface.cli.progress import track
from edgeface.evaluation.wider import spread
from edgeface.imageio import read_image

NOISE_PICTURES = 16
# Whose ranges are histograms of edgeface's own; NNCF measures anew for every case.
COUNTED = ("onnx", "tflite")
HEADER = (
    "| target | method | weights | pictures | easy | medium | hard | landmark error "
    "| SNR dB scores / boxes / landmarks | CPU s |\n|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Case:
    """One way to quantise for a target."""

    target: str
    images: int
    options: QuantizationOptions

    @property
    def method(self) -> str:
        """The method that runs."""
        return self.options.method or DEFAULT_METHOD

    @property
    def label(self) -> str:
        """The first cells of its row."""
        weights = "per channel" if self.options.per_channel else "per tensor"
        return f"| {self.target} | {self.method} | {weights} | {self.images} |"


def cases(targets: Sequence[str], images: Sequence[int], middle: int) -> Iterator[Case]:
    """Every method, then one scale per tensor, then every number of pictures."""
    for target in targets:
        counted = target in COUNTED
        at = middle if counted else nncf.MOST_FRAMES
        for method in METHODS if counted else nncf.METHODS:
            yield Case(target, at, QuantizationOptions(method))
        yield Case(target, at, QuantizationOptions(per_channel=False))
        for count in images:
            if count != at:
                yield Case(target, count, QuantizationOptions())


def noise(bundle: Bundle, case: Case, content: bytes, data: EvaluationData) -> dict[str, float]:
    """Signal to noise in dB of scores, boxes and landmarks against float32."""
    geometry = Geometry(bundle.anchors, bundle.pad_value)
    with (
        Trial(source(bundle, "onnx"), RUNNERS["onnx"], geometry) as reference,
        Trial(content, RUNNERS[case.target], geometry) as candidate,
    ):
        pictures = spread(data.pictures, NOISE_PICTURES)
        frames = [reference.place(read_image(one.path))[0] for one in pictures]
        results = [
            [{name: out.copy() for name, out in trial.infer(frame).items()} for frame in frames]
            for trial in (reference, candidate)
        ]
    return relevant_snr(*results)


def source(bundle: Bundle, target: str) -> bytes:
    """The float32 graph that a target is quantised from."""
    artifact = bundle.find("tflite" if target == "tflite" else "onnx", "fp32")
    if artifact is None:
        sys.exit(f"expected a bundle with fp32 graphs, got '{bundle.path}'")
    return bundle.open(artifact)


def measured(
    bundle: Bundle, calibration: CalibrationSet, data: EvaluationData, judge: Judge, case: Case
) -> str:
    """Quantise and measure: a row of the table."""
    began = time.process_time()
    float32 = source(bundle, case.target)
    content = quantize(case.target, float32, calibration[: case.images], case.options)
    took = time.process_time() - began
    verdict = judge.verdict(case.target, float32, content)
    shares = " | ".join(f"{share:.2%}" for share in verdict.shares.values())
    decibels = noise(bundle, case, content, data)
    return (
        f"{case.label} {shares} | {verdict.landmark_ratio - 1:+.2%} "
        f"| {' / '.join(f'{value:.1f}' for value in decibels.values())} | {took:.0f} |"
    )


class Store:
    """Rows that are kept in a file as soon as they are measured, under what they depend on."""

    def __init__(self, path: Path | None, facts: Sequence[object]) -> None:
        self._path = path
        self._facts = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        stored = path is not None and path.is_file()
        self._rows: dict[str, str] = json.loads(path.read_text()) if path and stored else {}

    def find(self, case: Case) -> str | None:
        """The row of a case, if it was measured before."""
        return self._rows.get(f"{self._facts} {case.label}")

    def keep(self, case: Case, row: str) -> None:
        """Keep a row."""
        self._rows[f"{self._facts} {case.label}"] = row
        if self._path is not None:
            write_atomic(self._path, json.dumps(self._rows, indent=1).encode())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="retinaface_mobilenet025", help="name or bundle folder")
    parser.add_argument("--data", type=Path, required=True, help="pictures to calibrate with")
    parser.add_argument("--evaluate", type=Path, action="append", required=True)
    parser.add_argument("--held-out", type=float, help="see 'edgeface report'")
    parser.add_argument("--limit", type=int, help="evaluate on N pictures of each")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--images", type=int, nargs="+", default=[50, 100, 300, 1000])
    parser.add_argument("--middle", type=int, default=300, help="pictures while methods compete")
    parser.add_argument("--store", type=Path, help="file that keeps the rows of a run cut short")
    args = parser.parse_args()
    bundle = load_bundle(args.model)
    preprocess = Preprocess(640, bundle.anchors.max_stride, bundle.pad_value)
    most = max(*args.images, args.middle)
    drawn = draw(args.data, preprocess, images=most, progress=lambda files: track(files, "reading"))
    data = load_evaluation_data(
        args.evaluate,
        held_out_share=args.held_out,
        exclude=[Path(picture.name).name for picture in drawn.calibration.pictures],
    )
    data = data if args.limit is None else data.limit(args.limit)
    wanted = list(cases(args.targets.split(","), args.images, args.middle))
    nncf.MOST_FRAMES = most
    judge = Judge(Geometry(bundle.anchors, bundle.pad_value), data)
    pictures = len(data.pictures), len(data.labelled)
    facts = [
        drawn.calibration.digest,
        [one.path.name for one in data.pictures],
        [one.image.name for one in data.labelled],
        [source(bundle, target) for target in COUNTED],
    ]
    store = Store(args.store, facts)
    print(HEADER)
    for case in track(wanted, f"comparing on {pictures} pictures", unit="case"):
        row = store.find(case)
        if row is None:
            row = measured(bundle, drawn.calibration, data, judge, case)
            store.keep(case, row)
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
