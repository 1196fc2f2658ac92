"""Weights to a bundle folder: artifacts, hashes, manifest and model card, all or nothing."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

from edgeface.bundle import (
    MANIFEST,
    PRECISIONS,
    Artifact,
    Bundle,
    load_bundle,
    write_manifest,
)
from edgeface.converters.half import compute_half, store_half, store_half_tflite
from edgeface.converters.inputsize import Size
from edgeface.converters.onnx import fix_batch, to_onnx
from edgeface.converters.parity import check_parity, pad_value
from edgeface.converters.report import ParityReport
from edgeface.converters.tflite import to_tflite
from edgeface.errors import ConversionError, InvalidOptionError, OutputError
from edgeface.nets.weights import StateDict, load_weights

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

TARGETS = ("onnx", "openvino", "tflite", "tensorrt")
FLOAT_FORMATS = ("onnx", "tflite")
PRECISION = "fp32"
FLOAT32 = tuple((target, PRECISION) for target in TARGETS)
MODEL_CARD = "MODEL_CARD.md"
# From Linux's fcntl.h and fs.h.
AT_FDCWD, RENAME_EXCHANGE = -100, 2

Kind: TypeAlias = tuple[str, str]
Quantise: TypeAlias = Callable[[str, bytes], bytes]
Progress: TypeAlias = Callable[[list[Kind], str], Iterable[Kind]]


@dataclass(frozen=True)
class Conversion:
    """A net in every target's format.

    Attributes:
        contents: the files' contents by format and precision.
        input_sizes: (width, height) pairs that the files are static for; empty: any size.
        report: how equal they are to torch.
        batch: frames that the files take at once; None: any number.
    """

    contents: dict[Kind, bytes]
    input_sizes: tuple[Size, ...]
    report: ParityReport
    batch: int | None = None


def artifact_kind(target: str, precision: str) -> Kind:
    """The format and precision of the file that serves a target.

    One ONNX file serves ONNX Runtime, OpenVINO and TensorRT at float32. At float16 TensorRT wants a
    graph that computes in it, the others one that stores it. At int8 each runtime is fastest and
    most accurate on a graph of its own.
    """
    shared = precision == "fp32" or (precision == "fp16" and target == "openvino")
    if target != "tflite" and shared:
        return "onnx", precision
    return target, precision


def convert(
    net: DetectorNet,
    wanted: Iterable[tuple[str, str]] = FLOAT32,
    input_sizes: Sequence[Size] = (),
    quantise: Quantise | None = None,
    progress: Progress = lambda kinds, _: kinds,
    batch: int | None = None,
) -> Conversion:
    """Convert a net to every target and check the results against torch.

    Args:
        net: a trained net; it is not changed.
        wanted: pairs of a target, of ``TARGETS``, and a precision: "fp32", "fp16" or "int8".
        input_sizes: (width, height) pairs of static files, of which ONNX has room for one; empty:
            any size.
        quantise: makes the int8 file of a target of its float32 file, ONNX or TFLite.
        progress: shows how far it is, given the files to make and what is being done.
        batch: frames that static files take at once; None: any number. TFLite takes one.

    Raises:
        MissingDependencyError: a package of the extra ``convert`` or ``quantize`` is not installed.
        InvalidOptionError: unknown target or precision, a size off the stride, or sizes or a batch
            that a target has no room for.
        CalibrationError: the net cannot be quantised.
        ConversionError: a converter fails, or an artifact differs from torch.
    """
    kinds: dict[Kind, str] = {}
    for target, precision in wanted:
        _check(target, precision, quantise)
        check_static(target, input_sizes, batch)
        kinds.setdefault(artifact_kind(target, precision), target)
    sources: dict[str, bytes] = {}
    contents: dict[Kind, bytes] = {}
    for kind in progress(list(kinds), "converting"):
        source = "tflite" if kind[0] == "tflite" else "onnx"
        if source not in sources:
            sources[source] = (
                to_tflite(net, input_sizes) if source == "tflite" else to_onnx(net, *input_sizes)
            )
        content = _at_precision(kind, kinds[kind], sources[source], quantise)
        contents[kind] = fix_batch(content, batch) if batch and source == "onnx" else content
    reports = [
        check_parity(
            net,
            {format: content for (format, of), content in contents.items() if of == precision},
            precision=precision,
            input_sizes={format: input_sizes for format, _ in contents},
            batch=batch,
        )
        for precision in dict.fromkeys(precision for _, precision in kinds)
    ]
    report = ParityReport(
        tuple(one for part in reports for one in part.backends),
        {name: why for part in reports for name, why in part.skipped.items()},
    )
    if not all(part.passed for part in reports):
        raise ConversionError(
            "expected the exported graphs to compute what torch computes, got\n"
            f"{report.to_markdown()}\n"
            "train further if the weights are near overflow, else report the preset's name"
        )
    return Conversion(contents, tuple(input_sizes), report, batch)


def _check(target: str, precision: str, quantise: Quantise | None) -> None:
    if target not in TARGETS:
        raise InvalidOptionError(f"expected a target of {', '.join(TARGETS)}, got '{target}'")
    if precision not in PRECISIONS:
        raise InvalidOptionError(
            f"expected a precision of {', '.join(PRECISIONS)}, got '{precision}'"
        )
    if precision == "int8" and quantise is None:
        raise InvalidOptionError("expected a quantiser for int8, got none; pass quantise")


def check_static(target: str, input_sizes: Sequence[Size], batch: int | None) -> None:
    """Raise InvalidOptionError where a target has no room for the fixed sizes or the batch."""
    if target == "tflite" and batch not in (None, 1):
        raise InvalidOptionError(
            f"expected a batch of 1 for tflite, got {batch}: LiteRT runs frame by frame; name the "
            "other targets (--target onnx,openvino,tensorrt)"
        )
    if target != "tflite" and len(input_sizes) > 1:
        raise InvalidOptionError(
            f"expected one input size for {target}, got {len(input_sizes)}: only a TFLite file "
            "holds several; export each by itself, or name that target (--target tflite)"
        )


def _at_precision(kind: Kind, target: str, source: bytes, quantise: Quantise | None) -> bytes:
    format, precision = kind
    if precision == "fp16":
        half = {"tflite": store_half_tflite, "tensorrt": compute_half}.get(format, store_half)
        return half(source)
    if precision == "int8" and quantise is not None:
        return quantise(target, source)
    return source


def check_output(output: Path, force: bool) -> None:
    """Raise InvalidOptionError where a bundle cannot be written without losing something."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST).is_file():
        raise InvalidOptionError(
            f"expected a new folder or a bundle to replace, got '{output}', which is neither; "
            "choose another folder"
        )
    if not force:
        raise InvalidOptionError(
            f"expected a new folder, got '{output}', which holds a bundle; "
            "choose another folder, or allow replacing it (--force)"
        )


def write_bundle(
    name: str,
    net: DetectorNet,
    conversion: Conversion,
    output: str | Path,
    metadata: Mapping[str, Any],
    *,
    weights: str = PRECISION,
    model_card: str | None = None,
    force: bool = False,
) -> Bundle:
    """Write a bundle folder; it appears complete or not at all.

    Args:
        name: name of the model.
        net: the net whose weights are stored beside the converted files.
        conversion: the converted files.
        output: the folder.
        metadata: licence, training data, recipe and accuracy, for the manifest; JSON types.
        weights: precision that the net's weights are stored in: "fp32" or "fp16".
        model_card: text of ``MODEL_CARD.md``, if any.
        force: replace a bundle that is already there; it survives where this one fails.

    Raises:
        MissingDependencyError: safetensors is not installed.
        InvalidOptionError: something else is in the folder's place.
        OutputError: the disk is full, or the folder cannot be written.
    """
    from edgeface.nets.weights import to_safetensors

    output = Path(output).absolute()
    check_output(output, force)
    files = {("safetensors", weights): to_safetensors(net, weights), **conversion.contents}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
            folder = Path(scratch) / "new"
            folder.mkdir()
            artifacts = []
            for (format, precision), content in files.items():
                name_of_file = _file_name(format, precision)
                (folder / name_of_file).write_bytes(content)
                runs = (format, precision) in conversion.contents
                limits = (conversion.input_sizes, conversion.batch) if runs else ()
                digest = hashlib.sha256(content).hexdigest()
                artifacts.append(Artifact(format, precision, name_of_file, digest, *limits))
            if model_card is not None:
                (folder / MODEL_CARD).write_text(model_card, "utf-8")
            write_manifest(
                Bundle(
                    name=name,
                    preset=net.preset,
                    path=folder,
                    anchors=net.anchors,
                    artifacts=tuple(artifacts),
                    pad_value=pad_value(net),
                    metadata=metadata,
                )
            )
            _move(folder, output, Path(scratch) / "old")
    except OSError as error:
        raise OutputError(
            f"expected to write the bundle {output}, got: {error}; free some space or choose "
            "another folder: what was there is as it was"
        ) from error
    return load_bundle(output)


def build_bundle(
    name: str,
    preset: str,
    state: StateDict,
    output: str | Path,
    metadata: Mapping[str, Any],
    *,
    model_card: str | None = None,
    force: bool = False,
) -> Bundle:
    """Turn a state dict into a bundle for every target: ``convert``, then ``write_bundle``.

    Args:
        name: name of the model.
        preset: preset of ``edgeface.nets`` that the weights belong to.
        state: state dict with the preset's own keys.
        output: the folder.
        metadata: for the manifest; JSON types.
        model_card: text of ``MODEL_CARD.md``, if any.
        force: replace a bundle that is already there.

    Raises:
        MissingDependencyError: a package of the extra ``convert`` is not installed.
        InvalidOptionError: unknown preset, or something else is in the folder's place.
        CheckpointError: the weights do not fit the preset.
        ConversionError: a converter fails, or an artifact differs from torch.
    """
    check_output(Path(output), force)
    net = load_weights(preset, state)
    return write_bundle(
        name, net, convert(net), output, metadata, model_card=model_card, force=force
    )


def _file_name(format: str, precision: str) -> str:
    if format == "safetensors":
        return f"weights.{precision}.safetensors"
    suffix = format if format in FLOAT_FORMATS else f"{format}.onnx"
    return f"model.{precision}.{suffix}"


def _move(folder: Path, output: Path, aside: Path) -> None:
    """Put a folder in the place of another, at once where the system can swap two names."""
    if not output.exists():
        folder.replace(output)
    elif not _swap(folder, output):
        output.replace(aside)
        try:
            folder.replace(output)
        except OSError:
            aside.replace(output)
            raise


def _swap(one: Path, other: Path) -> bool:
    """Swap two names in one step (Linux, most file systems); False where that is not possible."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other))
    return bool(rename(*names, RENAME_EXCHANGE) == 0)
