"""Float16: files of half the size for every target, and graphs that compute in it for TensorRT."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeface.converters.quiet import quiet
from edgeface.errors import ConversionError, missing_extra

LARGEST = float(np.finfo(np.float16).max)
# Smaller constants stay: their bytes do not count, and a scale may need its precision.
LEAST_VALUES = 64
# Inputs that ONNX defines as float32 whatever the others are.
FLOAT32_INPUTS = {"Resize": (1, 2)}


def store_half(content: bytes) -> bytes:
    """Store an ONNX file's weights in float16; runtimes cast them back when they load it.

    For ONNX Runtime and OpenVINO, which compute in float32, or in what suits the device.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    onnx = _onnx()
    model = onnx.load_from_string(content)
    casts = []
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < LEAST_VALUES:
            continue
        name = f"{weight.name}_half"
        weight.CopyFrom(onnx.numpy_helper.from_array(_half(values), name))
        target = name.removesuffix("_half")
        casts.append(
            onnx.helper.make_node("Cast", [name], [target], name=f"cast_{target}", to=FLOAT)
        )
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    return bytes(model.SerializeToString())


def compute_half(content: bytes) -> bytes:
    """Make an ONNX graph compute in float16 from the picture on; its outputs stay float32.

    For TensorRT, whose strongly typed networks run as they are written.

    Raises:
        MissingDependencyError: onnx is not installed.
        ConversionError: a node has a float32 type that cannot be changed.
    """
    onnx = _onnx()
    model = onnx.load_from_string(content)
    graph = model.graph
    single = {
        node.input[index]
        for node in graph.node
        for index in FLOAT32_INPUTS.get(node.op_type, ())
        if index < len(node.input)
    }
    for weight in graph.initializer:
        if weight.data_type == FLOAT and weight.name not in single:
            weight.CopyFrom(_half_tensor(onnx, weight))
    for node in graph.node:
        kept = single.intersection(node.output)
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == FLOAT and not kept:
                attribute.i = FLOAT16
            if attribute.HasField("t") and attribute.t.data_type == FLOAT and not kept:
                attribute.t.CopyFrom(_half_tensor(onnx, attribute.t))
    del graph.value_info[:]
    for output in graph.output:
        name = f"{output.name}_half"
        for node in graph.node:
            for index, value in enumerate(node.output):
                if value == output.name:
                    node.output[index] = name
            for index, value in enumerate(node.input):
                if value == output.name:
                    node.input[index] = name
        graph.node.append(onnx.helper.make_node("Cast", [name], [output.name], to=FLOAT))
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ConversionError(
            f"expected a graph that can compute in float16, got: {' '.join(str(error).split())}; "
            "export it at fp32 or int8"
        ) from error
    return bytes(model.SerializeToString())


def store_half_tflite(content: bytes) -> bytes:
    """Store a TFLite file's weights in float16; XNNPACK unpacks them when it loads it.

    Raises:
        MissingDependencyError: ai-edge-quantizer is not installed.
    """
    try:
        with quiet():
            from ai_edge_quantizer import qtyping, quantizer
    except ImportError as error:
        raise missing_extra(error.name or "ai-edge-quantizer", "quantize") from error
    with quiet():
        work = quantizer.Quantizer(content)
        work.update_quantization_recipe(
            ".*",
            qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(
                    num_bits=16, dtype=qtyping.TensorDataType.FLOAT
                ),
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key="float_casting",
        )
        result = work.quantize(enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


# onnx.TensorProto's numbers, known before onnx is imported.
FLOAT, FLOAT16 = 1, 10


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "convert") from error
    return onnx


def _half(values: Any) -> Any:
    return np.clip(values, -LARGEST, LARGEST).astype(np.float16)


def _half_tensor(onnx: Any, tensor: Any) -> Any:
    helper = onnx.numpy_helper
    return helper.from_array(_half(helper.to_array(tensor)), tensor.name)
