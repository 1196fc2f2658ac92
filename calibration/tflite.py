"""INT8 for LiteRT by ai-edge-quantizer, from ranges of our own histograms.

The quantiser leaves LEAKY_RELU in float between a DEQUANTIZE and a QUANTIZE; XNNPACK has an int8
kernel for it, so those three become one. What leads to a layer in float stays in float too: XNNPACK
pads inside a float convolution at no cost, and subtracts a mean slowly in int8. Outputs stay
float32, and frames may have any size where the float graph takes any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeface.calibration.histogram import METHODS
from edgeface.calibration.ranges import Activations, Frame, Progress, collect
from edgeface.converters.flatbuffer import (
    FILE_IDENTIFIER,
    WEIGHTED,
    operator_name,
    read_model,
    schema,
    weighted_operators,
    write_model,
)
from edgeface.converters.quiet import quiet
from edgeface.errors import CalibrationError, missing_extra

EXTRA = "quantize"
FLOAT = "no_quantize"
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
MIN_CHANNELS = 16
# Of the schema: the first version of the operator that takes int8.
LEAKY_RELU_VERSION = 2


def quantizable(source: bytes) -> list[str]:
    """Names of the layers that ``quantize`` makes int8."""
    narrow = _narrow(source)
    return [name for name in _layers(source) if name not in narrow]


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
        with quiet():
            from ai_edge_quantizer import qtyping, quantizer
    except ImportError as error:
        raise missing_extra(error.name or "ai-edge-quantizer", EXTRA) from error
    kept = _float_tensors(source, [*_narrow(source), *keep_float])
    histograms = collect(source, activations(source), frames, digest, progress)
    ranges = {}
    for name, histogram in histograms.items():
        low, high = METHODS[method](histogram)
        ranges[name] = {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
    grain = qtyping.QuantGranularity
    operations = qtyping.TFLOperationName
    with quiet():
        work = quantizer.Quantizer(source)
        work.add_static_config(
            ".*",
            operations.ALL_SUPPORTED,
            activation_num_bits=8,
            weight_num_bits=8,
            weight_granularity=grain.CHANNELWISE if per_channel else grain.TENSORWISE,
        )
        for operation in (operations.INPUT, operations.OUTPUT):
            work.update_quantization_recipe(".*", operation, algorithm_key=FLOAT)
        for tensor in kept:
            work.update_quantization_recipe(
                f"^{re.escape(tensor)}(;|$)", operations.ALL_SUPPORTED, algorithm_key=FLOAT
            )
        result = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return join_leaky_relu(bytes(result.quantized_model))


def activations(source: bytes) -> Callable[[Frame], Activations]:
    """Make a function that gives every float activation of a TFLite graph for a frame."""
    from edgeface.runtimes.base import import_vendor

    vendor = import_vendor("tflite", ".interpreter")
    with quiet():
        interpreter = vendor.Interpreter(
            model_content=source, experimental_preserve_all_tensors=True, num_threads=1
        )
    image = interpreter.get_input_details()[0]["index"]
    made = {index for operator in interpreter._get_ops_details() for index in operator["outputs"]}

    def run(frame: Frame) -> Activations:
        interpreter.resize_tensor_input(image, frame.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(image, frame)
        interpreter.invoke()
        return {
            one["name"]: interpreter.get_tensor(one["index"])
            for one in interpreter.get_tensor_details()
            if one["index"] in made and one["dtype"] == np.float32
        }

    return run


def join_leaky_relu(content: bytes) -> bytes:
    """Make one int8 LEAKY_RELU of each DEQUANTIZE, LEAKY_RELU and QUANTIZE in a row."""
    model = read_model(content)
    int8 = schema().TensorType.INT8
    for graph in model.subgraphs:
        kinds = [operator_name(model, operator) for operator in graph.operators]
        steps = list(zip(kinds, graph.operators, strict=True))
        dequantised = {one.outputs[0]: one.inputs[0] for kind, one in steps if kind == "DEQUANTIZE"}
        quantised = {one.inputs[0]: one.outputs[0] for kind, one in steps if kind == "QUANTIZE"}
        for kind, operator in steps:
            if kind != "LEAKY_RELU":
                continue
            source = dequantised.get(operator.inputs[0])
            target = quantised.get(operator.outputs[0])
            users = [one for _, one in steps if operator.outputs[0] in one.inputs]
            whole = source is not None and target is not None and len(users) == 1
            if whole and {graph.tensors[source].type, graph.tensors[target].type} == {int8}:
                operator.inputs, operator.outputs = [source], [target]
                model.operatorCodes[operator.opcodeIndex].version = LEAKY_RELU_VERSION
        made = {index for kind, one in steps if kind != "QUANTIZE" for index in one.outputs}
        graph.operators = [
            one for kind, one in steps if kind != "QUANTIZE" or one.outputs[0] not in made
        ]
        used = {index for one in graph.operators for index in one.inputs} | set(graph.outputs)
        graph.operators = [
            one
            for one in graph.operators
            if operator_name(model, one) != "DEQUANTIZE" or one.outputs[0] in used
        ]
    return write_model(model)


def _float_tensors(source: bytes, layers: Sequence[str]) -> list[str]:
    """Names of the tensors that some layers make, and of what leads to these layers alone."""
    model = read_model(source)
    names = _layers(source)
    wanted = {tensor for layer in layers for tensor in names[layer]}
    found = []
    for graph in model.subgraphs:
        users: dict[int, list[int]] = {}
        kept: set[int] = set()
        for number, operator in enumerate(graph.operators):
            for index in operator.inputs:
                users.setdefault(index, []).append(number)
        for number, operator in reversed(list(enumerate(graph.operators))):
            output = operator.outputs[0]
            name = graph.tensors[output].name.decode()
            layer = operator_name(model, operator) in WEIGHTED
            after = users.get(output, [])
            if name in wanted or (not layer and after and kept.issuperset(after)):
                kept.add(number)
                found.append(name)
    return found


def _narrow(source: bytes) -> set[str]:
    """The convolutions of few channels, which int8 makes slower and coarser."""
    model = _read(source)
    return {
        graph.tensors[operator.outputs[0]].name.decode().partition("#")[0]
        for graph, operator in weighted_operators(model)
        if operator_name(model, operator) in CONVOLUTIONS
        and graph.tensors[operator.inputs[1]].shape[-1] < MIN_CHANNELS
    }


def _read(source: bytes) -> Any:
    """Parse a TFLite file; raises CalibrationError where it is none, or has custom operators."""
    if source[4:8] != FILE_IDENTIFIER:
        raise CalibrationError(
            f"expected a TFLite file to quantise, got {len(source)} bytes of something else; make "
            "it with 'edgeface export'"
        )
    model = read_model(source)
    for graph in model.subgraphs:
        for operator in graph.operators:
            if operator_name(model, operator) == "CUSTOM":
                name = graph.tensors[operator.outputs[0]].name.decode()
                raise CalibrationError(
                    f"expected operators of TFLite, got a custom one in the layer '{name}'; only "
                    "graphs of 'edgeface export' are quantised"
                )
    return model


def _layers(source: bytes) -> dict[str, list[str]]:
    """The names of the tensors that each layer makes."""
    found: dict[str, list[str]] = {}
    for graph, operator in weighted_operators(_read(source)):
        name = graph.tensors[operator.outputs[0]].name.decode()
        found.setdefault(name.partition("#")[0], []).append(name)
    return found
