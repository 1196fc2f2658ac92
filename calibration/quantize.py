"""One call from a float32 graph and calibration frames to the INT8 graph of a target."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeface.calibration import nncf, onnx, tflite
from edgeface.calibration.graph import check_layers
from edgeface.calibration.histogram import METHODS
from edgeface.calibration.ranges import Frame, Progress
from edgeface.errors import CalibrationError, EdgeFaceError, InvalidOptionError

TARGETS = ("onnx", "openvino", "tflite", "tensorrt")
# What kept most of fp32's average precision on the shipped nets, of what was tried.
DEFAULT_METHOD = "mse"


@dataclass(frozen=True)
class QuantizationOptions:
    """How to quantise.

    Attributes:
        method: how ranges of activations are found: "minmax", "percentile", "entropy" or "mse";
            None: least squared error. OpenVINO and TensorRT have no entropy.
        per_channel: one scale per output channel of a weight, instead of one per weight.
        keep_float: names of layers that stay in float, of ``quantizable_layers``.
    """

    method: str | None = None
    per_channel: bool = True
    keep_float: tuple[str, ...] = ()


def silent(items: Iterable[Any], description: str) -> Iterable[Any]:  # noqa: ARG001
    """The progress display that shows nothing."""
    return items


def quantizable_layers(target: str, source: bytes) -> list[str]:
    """Name the layers that ``quantize`` makes int8, as ``backbone.stage1.2.0``, in graph order.

    Args:
        target: one of TARGETS.
        source: the float32 graph: TFLite for "tflite", ONNX for the others.

    Raises:
        MissingDependencyError: a package of the extra ``quantize`` is not installed.
        InvalidOptionError: unknown target.
        CalibrationError: the graph breaks the graph contract.
    """
    check_target(target)
    if target == "onnx":
        return onnx.quantizable(source)
    if target == "tflite":
        return tflite.quantizable(source)
    return nncf.quantizable(source, signed=target == "tensorrt")


def quantize(
    target: str,
    source: bytes,
    frames: Sequence[Frame],
    options: QuantizationOptions = QuantizationOptions(),
    progress: Progress = silent,
) -> bytes:
    """Quantise weights and activations to 8 bits.

    Args:
        target: "onnx" for ONNX Runtime, "openvino", "tensorrt" or "tflite".
        source: the float32 graph: TFLite for "tflite", ONNX for the others.
        frames: uint8 (1, H, W, 3) BGR network frames, letterboxed as the detector does; sizes may
            differ. ``edgeface.calibration.subset.CalibrationSet`` reads them one by one.
        options: how.
        progress: shows how far it is, like ``edgeface.cli.progress.track``.

    Returns:
        The graph, with the same inputs and outputs: ONNX with QDQ, or TFLite.

    Raises:
        MissingDependencyError: a package of the extra ``quantize`` is not installed.
        InvalidOptionError: unknown target, method or layer, or a method that the target lacks.
        CalibrationError: no frames, a graph that breaks the contract, or one with an operator that
            cannot be quantised; the message names it and its layer.
    """
    check_target(target)
    method = check_method(target, options.method)
    check_layers(options.keep_float, quantizable_layers(target, source))
    if not len(frames):
        raise CalibrationError("expected calibration frames, got none; see 'edgeface calibrate'")
    how = (method, options.per_channel, options.keep_float, progress)
    digest = getattr(frames, "digest", "")
    try:
        if target == "onnx":
            return onnx.quantize(source, frames, digest, *how)
        if target == "tflite":
            return tflite.quantize(source, frames, digest, *how)
        return nncf.quantize(source, frames, *how, signed=target == "tensorrt")
    except (EdgeFaceError, OSError):
        raise
    except Exception as error:
        raise CalibrationError(
            f"expected the graph {hashlib.sha256(source).hexdigest()[:12]} to quantise for "
            f"'{target}', got {type(error).__name__}: {' '.join(str(error).split())}; keep the "
            "layer that it names in float, or report the preset's name"
        ) from error


def check_target(target: str) -> None:
    """Raise InvalidOptionError for an unknown target."""
    if target not in TARGETS:
        raise InvalidOptionError(f"expected a target of {', '.join(TARGETS)}, got '{target}'")


def check_method(target: str, method: str | None) -> str:
    """The method to use; raises InvalidOptionError for one that the target lacks."""
    if method is None:
        return DEFAULT_METHOD
    known = METHODS if target in ("onnx", "tflite") else nncf.METHODS
    if method not in known:
        raise InvalidOptionError(
            f"expected a calibration method of {', '.join(known)} for '{target}', got '{method}'"
        )
    return method
