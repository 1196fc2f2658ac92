"""TFLite files as objects that can be changed, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeface.errors import missing_extra

FILE_IDENTIFIER = b"TFL3"
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def schema() -> Any:
    """The module of TFLite's schema; raises MissingDependencyError without ai-edge-litert."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise missing_extra("ai-edge-litert", "convert") from error
    return schema_py_generated


def read_model(content: bytes) -> Any:
    """Parse a TFLite file into the schema's ``ModelT``, with all its buffers inside."""
    model = schema().ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset:
            end = buffer.offset + buffer.size
            buffer.data = np.frombuffer(content[buffer.offset : end], np.uint8)
            buffer.offset = buffer.size = 0
    return model


def write_model(model: Any) -> bytes:
    """Write a ``ModelT`` as a TFLite file; raises MissingDependencyError without flatbuffers."""
    try:
        import flatbuffers
    except ImportError as error:
        raise missing_extra("flatbuffers", "convert") from error
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def operator_name(model: Any, operator: Any) -> str:
    """Name of an operator's kind, as ``CONV_2D``."""
    code = model.operatorCodes[operator.opcodeIndex].builtinCode
    kinds = vars(schema().BuiltinOperator).items()
    return next((name for name, value in kinds if value == code), str(code))


def weighted_operators(model: Any) -> list[tuple[Any, Any]]:
    """The graphs and operators with constant kernels, in order."""
    return [
        (graph, operator)
        for graph in model.subgraphs
        for operator in graph.operators
        if operator_name(model, operator) in WEIGHTED
    ]


def name_layers(content: bytes, names: Sequence[str]) -> bytes:
    """Name the results of a file's weighted operators after the net's layers.

    Args:
        content: a TFLite file; every signature holds all layers.
        names: the layers in the order in which they run. One that runs more than once gets a
            number: ``head.boxes``, ``head.boxes#1``.

    Returns:
        The file; the one that came where its operators are not those layers.
    """
    model = read_model(content)
    operators = weighted_operators(model)
    if not names or len(operators) != len(names) * len(model.subgraphs):
        return content
    for position, (graph, operator) in enumerate(operators):
        turn = position % len(names)
        again = list(names[:turn]).count(names[turn])
        tensor = graph.tensors[operator.outputs[0]]
        tensor.name = (names[turn] + (f"#{again}" if again else "")).encode()
    return write_model(model)
