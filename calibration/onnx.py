"""INT8 for ONNX Runtime: QDQ, asymmetric uint8 activations, int8 weights per channel.

One file serves x86 and ARM: MLAS has kernels for uint8 activations with int8 weights on both, while
symmetric int8 activations lose half their levels behind a ReLU and are slower on x86. The logits
stay in float: of 256 levels the anchors of a large face share one, and how a processor rounds would
say whose box it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeface.calibration.graph import float_nodes, layers, output_layers, read_graph
from edgeface.calibration.histogram import METHODS, Histogram
from edgeface.calibration.ranges import Activations, Frame, Progress, collect
from edgeface.errors import missing_extra
from edgeface.runtimes.base import INPUT, failed

# The int8 kernels work on 16 channels at a time: narrower layers are slower than in float.
MIN_CHANNELS = 16
OPERATORS = ("Conv", "LeakyRelu", "Relu", "Add", "Concat", "MaxPool", "Resize", "Reshape",
             "Transpose", "Gemm", "MatMul")  # fmt: skip
PROVIDERS = ["CPUExecutionProvider"]


def quantizable(source: bytes) -> list[str]:
    """Names of the layers that ``quantize`` makes int8."""
    model = read_graph(source)
    kept = _kept(model)
    return [
        name
        for name, nodes in layers(model).items()
        if name not in kept and nodes[0].op_type in OPERATORS
    ]


def quantize(
    source: bytes,
    frames: Sequence[Frame],
    digest: str,
    method: str,
    per_channel: bool,
    keep_float: Sequence[str],
    progress: Progress,
) -> bytes:
    """Quantise; see ``edgeface.calibration.quantize.quantize``."""
    try:
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.calibrate import (
            CalibrationMethod,
            TensorData,
            TensorsData,
        )
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer
    except ImportError as error:
        raise missing_extra(error.name or "onnx", "quantize") from error
    model = read_graph(source)
    excluded = float_nodes(model, [*_kept(model), *keep_float])
    histograms = collect(source, activations(source), frames, digest, progress)
    ranges = TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in apply(method, histograms).items()
        },
    )
    quantizer = QDQQuantizer(
        save_and_reload_model_with_shape_infer(model),
        per_channel=per_channel,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=excluded,
        op_types_to_quantize=list(OPERATORS),
        extra_options={},
    )
    quantizer.quantize_model()
    content: bytes = quantizer.model.model.SerializeToString()
    return content


def apply(method: str, histograms: Mapping[str, Histogram]) -> dict[str, tuple[float, float]]:
    """The range of every tensor by a calibration method."""
    return {name: METHODS[method](histogram) for name, histogram in histograms.items()}


def activations(source: bytes) -> Callable[[Frame], Activations]:
    """Make a function that gives every float activation of an ONNX graph for a frame."""
    import onnx
    import onnxruntime

    model = onnx.load_from_string(source)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    floats = [
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in floats)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), settings, PROVIDERS)

    def run(frame: Frame) -> Activations:
        try:
            return dict(zip(floats, session.run(floats, {INPUT: frame}), strict=True))
        except Exception as error:
            raise failed("onnxruntime", frame, error) from error

    return run


def _kept(model: Any) -> list[str]:
    """The layers that stay in float: narrow ones, and those that make the logits."""
    channels = {one.name: tuple(one.dims) for one in model.graph.initializer}

    def width(node: Any) -> int:
        group = next((one.i for one in node.attribute if one.name == "group"), 1)
        return int(channels[node.input[1]][1] * group)

    narrow = [
        name
        for name, nodes in layers(model).items()
        if nodes[0].op_type == "Conv" and width(nodes[0]) < MIN_CHANNELS
    ]
    return [*narrow, *output_layers(model, "logit")]
