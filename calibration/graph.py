"""Reading ONNX graphs of ``edgeface.converters.onnx``: layers by their names in the net."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from edgeface.errors import (
    CalibrationError,
    InvalidOptionError,
    ModelIntegrityError,
    missing_extra,
)
from edgeface.runtimes.base import check_graph

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
STANDARD = ("", "ai.onnx")
ACTIVATIONS = ("LeakyRelu", "Relu", "Clip", "Sigmoid", "PRelu")
# What carries a head's output to the graph's without computing.
CARRIERS = ("Reshape", "Transpose")


def read_graph(source: bytes) -> Any:
    """Parse an ONNX file.

    Raises:
        MissingDependencyError: onnx is not installed.
        CalibrationError: it is no ONNX file, or breaks the graph contract.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "quantize") from error
    try:
        model = onnx.load_from_string(source)
        _check_operators(model, onnx.defs.has)
        onnx.checker.check_model(model)
        check_graph([i.name for i in model.graph.input], [o.name for o in model.graph.output])
    except CalibrationError:
        raise
    except ModelIntegrityError as error:
        raise CalibrationError(str(error)) from error
    except Exception as error:
        raise CalibrationError(
            f"expected an ONNX graph to quantise, got: {' '.join(str(error).split())}; "
            "make it with 'edgeface export'"
        ) from error
    return model


def _check_operators(model: Any, known: Callable[[str], bool]) -> None:
    weights = {one.name for one in model.graph.initializer}
    for node in model.graph.node:
        if node.domain not in STANDARD or not known(node.op_type):
            weight = next((name for name in node.input if name in weights), "")
            raise CalibrationError(
                f"expected operators of ONNX, got '{node.op_type}' in the layer "
                f"'{layer_name(weight, node.name)}'; only graphs of 'edgeface export' are quantised"
            )


def layers(model: Any) -> dict[str, list[Any]]:
    """The nodes with weights by the name of their layer in the net, in the graph's order.

    A layer that is applied to several pyramid levels has several nodes.
    """
    weights = {one.name for one in model.graph.initializer}
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type in WEIGHTED and (weight := weights.intersection(node.input[:2])):
            found.setdefault(layer_name(weight.pop(), node.name), []).append(node)
    return found


def layer_name(weight: str, node: str) -> str:
    """``backbone.stage1.0.0`` for the weight ``net.backbone.stage1.0.0.weight``."""
    name, _, kind = weight.rpartition(".")
    return name.removeprefix("net.") if kind == "weight" else node


def output_layers(model: Any, kind: str = "") -> list[str]:
    """The layers whose results leave the graph as they are: the last of the heads.

    Args:
        model: the graph.
        kind: one of ``edgeface.runtimes.base.OUTPUTS``, for the layers of these outputs alone.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    last = set()
    for output in model.graph.output:
        if not output.name.startswith(kind):
            continue
        node = producers.get(output.name)
        while node is not None and node.op_type in CARRIERS:
            node = producers.get(node.input[0])
        last.add(node.name if node is not None else "")
    return [name for name, nodes in layers(model).items() if last & {node.name for node in nodes}]


def float_nodes(model: Any, keep: Iterable[str]) -> list[str]:
    """Names of the nodes of some layers, and of the activations that follow them.

    Raises:
        InvalidOptionError: there is no such layer.
    """
    found = layers(model)
    check_layers(keep, found)
    nodes = [node for name in keep for node in found[name]]
    values = {output for node in nodes for output in node.output}
    after = [
        node for node in model.graph.node if node.op_type in ACTIVATIONS and node.input[0] in values
    ]
    return [node.name for node in (*nodes, *after)]


def check_layers(keep: Iterable[str], known: Collection[str]) -> None:
    """Raise InvalidOptionError where a layer is unknown."""
    if unknown := [name for name in keep if name not in known]:
        raise InvalidOptionError(
            f"expected layers of this graph to keep in float, got {', '.join(unknown)}; "
            f"it has {', '.join(known)}"
        )
