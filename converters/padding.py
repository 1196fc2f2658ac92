"""Max pooling in TFLite files, whose border int8 can hold.

The converter pads before max pooling with minus infinity, which no range of 8 bits holds. Behind a
ReLU zeros do the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeface.converters.flatbuffer import operator_name, read_model, schema, write_model


def pad_with_zeros(content: bytes) -> bytes:
    """Replace paddings with minus infinity by zeros, where what they pad is never negative."""
    model = read_model(content)
    for graph in model.subgraphs:
        made_by = {index: one for one in graph.operators for index in one.outputs}
        for operator in graph.operators:
            if operator_name(model, operator) != "PADV2":
                continue
            source, amounts, value = operator.inputs
            if _is_lowest(model, graph.tensors[value]) and _is_relu(model, made_by.get(source)):
                operator.inputs = [source, amounts]
                operator.opcodeIndex = _padding(model)
                operator.builtinOptionsType = schema().BuiltinOptions.PadOptions
                operator.builtinOptions = schema().PadOptionsT()
    return write_model(model)


def _is_lowest(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and bool(np.asarray(data, np.uint8).view(np.float32)[0] == -np.inf)


def _is_relu(model: Any, operator: Any) -> bool:
    if operator is None:
        return False
    fused = getattr(operator.builtinOptions, "fusedActivationFunction", None)
    return operator_name(model, operator) == "RELU" or (
        fused == schema().ActivationFunctionType.RELU
    )


def _padding(model: Any) -> int:
    """Index of the operator code of PAD."""
    code = schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema().BuiltinOperator.PAD
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
