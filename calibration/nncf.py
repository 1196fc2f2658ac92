"""INT8 by NNCF as ONNX graphs with QDQ, for OpenVINO and for TensorRT.

NNCF quantises the inputs of weighted layers alone and corrects their biases. OpenVINO reads the
ONNX file, and runs it faster than the IR that NNCF makes of the same graph; asymmetric activations
cost it nothing. TensorRT takes signed, symmetric values alone and rejects an int32 bias behind a
DequantizeLinear, which NNCF does not write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgeface.calibration.graph import float_nodes, layers, output_layers, read_graph
from edgeface.calibration.ranges import Frame, Progress
from edgeface.converters.quiet import quiet
from edgeface.errors import missing_extra
from edgeface.runtimes.base import INPUT

# By method: NNCF's range estimator.
METHODS = {"minmax": "MEAN_MINMAX", "percentile": "MEAN_QUANTILE", "mse": "HISTOGRAM"}
# The nodes that turn a picture into the first layer's input.
INPUT_OPERATORS = ("Cast", "Sub", "Transpose")
# More change nothing (benchmarks/calibration.py) and take NNCF minutes; a stratified draw begins
# with a smaller one.
MOST_FRAMES = 100
SIGNED_LEVELS, UNSIGNED_LEVELS = 127, 255


def quantizable(source: bytes, signed: bool) -> list[str]:
    """Names of the layers that ``quantize`` makes int8."""
    model = read_graph(source)
    kept = output_layers(model) if signed else []
    return [name for name in layers(model) if name not in kept]


def quantize(
    source: bytes,
    frames: Sequence[Frame],
    method: str,
    per_channel: bool,
    keep_float: Sequence[str],
    progress: Progress,
    *,
    signed: bool,
) -> bytes:
    """Quantise; see ``edgeface.calibration.quantize.quantize``.

    Args:
        source: the float32 ONNX graph.
        frames: calibration frames.
        method: a key of METHODS.
        per_channel: one scale per output channel of a weight.
        keep_float: layers that stay as they are.
        progress: shows how far it is.
        signed: symmetric int8 activations alone, as TensorRT wants them; the heads' last layers
            then stay in float, because their inputs would lose half their levels.
    """
    # NNCF reports each use to its vendor through this package, from a forked process.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        with quiet():
            import nncf
            from nncf.quantization.advanced_parameters import (
                AdvancedQuantizationParameters,
                QuantizationParameters,
            )
            from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    except ImportError as error:
        raise missing_extra(error.name or "nncf", "quantize") from error
    model = read_graph(source)
    kept = float_nodes(model, [*(output_layers(model) if signed else ()), *keep_float])
    if signed:
        kept += _input_nodes(model)
    presets = nncf.QuantizationPreset
    frames = frames[:MOST_FRAMES]
    dataset = nncf.Dataset(_Passes(frames, progress), lambda frame: {INPUT: frame})
    with quiet():
        quantized = nncf.quantize(
            model,
            dataset,
            preset=presets.PERFORMANCE if signed else presets.MIXED,
            subset_size=len(frames),
            ignored_scope=nncf.IgnoredScope(names=sorted(set(kept))),
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=getattr(
                    RangeEstimatorParametersSet, METHODS[method]
                ),
                weights_quantization_params=QuantizationParameters(per_channel=per_channel),
            ),
        )
    if signed:
        _make_signed(quantized)
    del quantized.metadata_props[:]
    content: bytes = quantized.SerializeToString()
    return content


class _Passes:
    """The frames, as often as NNCF goes through them, each time with a progress display."""

    def __init__(self, frames: Sequence[Frame], progress: Progress) -> None:
        self._frames = frames
        self._progress = progress

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._progress(self._frames, "calibrating"))


def _input_nodes(model: Any) -> list[str]:
    """Names of the nodes before the first layer."""
    values, found = {INPUT}, []
    for node in model.graph.node:
        if node.op_type in INPUT_OPERATORS and node.input[0] in values:
            values.update(node.output)
            found.append(node.name)
    return found


def _make_signed(model: Any) -> None:
    """Turn unsigned quantisers from 0, as behind a ReLU, into signed ones of the same range."""
    from onnx import numpy_helper

    constants = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = (constants[name] for name in node.input[1:3])
        offset = numpy_helper.to_array(zero)
        if offset.dtype == np.uint8 and not offset.any():
            wider = numpy_helper.to_array(scale) * np.float32(UNSIGNED_LEVELS / SIGNED_LEVELS)
            scale.CopyFrom(numpy_helper.from_array(wider.astype(np.float32), scale.name))
            zero.CopyFrom(numpy_helper.from_array(offset.astype(np.int8), zero.name))
    del model.graph.value_info[:]
