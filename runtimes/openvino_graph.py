"""Rewrites of a graph that OpenVINO's CPU plug-in runs faster; the faces stay.

Its convolutions compute in NHWC, as a camera's bytes lie. An exported graph transposes them to
NCHW, casts them and subtracts the mean, and a quantised one rounds them to 8 bits before and after.
The plug-in runs that as three passes over the picture: 0.55 of 4.2 ms at 640 x 480 in int8.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

_QUANTISED = "FakeQuantize Convert Convert Subtract Multiply "
_PICTURE = re.compile(rf"Convert ({_QUANTISED})?Transpose ({_QUANTISED})?Subtract ({_QUANTISED})?")
_TO_NCHW = [0, 3, 1, 2]
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Convert": np.float32,
    "Subtract": np.subtract,
    "Multiply": np.multiply,
    "Reshape": lambda value, shape: value.reshape(shape),
}

# Names what this file does to a graph, for the cache of compiled ones.
REWRITES = "camera bytes, one grey"


def is_int8(model: Any) -> bool:
    """Whether every convolution of a graph has int8 weights."""
    nodes = [node for node in model.get_ops() if node.get_type_name() in _CONVOLUTIONS]
    return all(node.input_value(1).get_node().get_type_name() != "Constant" for node in nodes)


def take_camera_bytes(vendor: ModuleType, model: Any) -> None:
    """Give the first convolution the picture as it lies in memory, and the mean beside it.

    In int8 its input becomes the camera's bytes themselves: no pass over the picture at all, and no
    rounding of it. Their zero point is one grey, the mean of the mean, and the bias makes up for
    the difference; so outside the picture the convolution sees that grey. In float one pass is
    left, which takes each row of pixels as one row of numbers, and every result stays the same to
    the bit. A graph that begins otherwise stays as it is.

    Args:
        vendor: the package openvino.
        model: a graph of static or dynamic shape; changed.
    """
    path, target = _path(model)
    steps = " ".join([*(node.get_type_name() for node in path), ""])
    if not _PICTURE.fullmatch(steps):
        return
    transpose = next(node for node in path if node.get_type_name() == "Transpose")
    means = [node for node in path[path.index(transpose) :] if _is_mean(node)]
    order = transpose.input_value(1).get_node()
    if len(means) != 1 or order.data.tolist() != _TO_NCHW or not _rounds_only(path):
        return
    mean = means[0].input_value(1).get_node().data
    if "FakeQuantize" in steps:
        _take_bytes(vendor.opset13, model, target, mean)
    elif not model.is_dynamic():
        _take_rows(vendor.opset13, model, target, mean)
    model.validate_nodes_and_infer_types()


def _take_bytes(ops: ModuleType, model: Any, target: Any, mean: Any) -> None:
    layer, [picture] = target.get_node(), model.get_parameters()
    weights = _value(layer.input_value(1)) if layer.get_type_name() == "Convolution" else None
    if weights is None:
        return
    grey = np.float32(round(float(mean.mean())))
    zero, most = (ops.constant(np.float32(value)) for value in (0, 255))
    taken = ops.fake_quantize(ops.convert(picture, "f32"), zero, most, zero, most, 256)
    taken = ops.subtract(ops.transpose(taken, _TO_NCHW), ops.constant(grey))
    target.replace_source_output(taken.output(0))
    readers = layer.output(0).get_target_inputs()
    bias = (weights * (grey - mean)).sum((1, 2, 3)).reshape(1, -1, 1, 1)
    shifted = ops.add(layer, ops.constant(bias.astype(np.float32)))
    for reader in readers:
        reader.replace_source_output(shifted.output(0))


def _take_rows(ops: ModuleType, model: Any, target: Any, mean: Any) -> None:
    [picture] = model.get_parameters()
    batch, height, width, channels = picture.shape
    rows = ops.convert(ops.reshape(picture, [batch, height, width * channels], False), "f32")
    rows = ops.subtract(rows, ops.constant(np.tile(mean.reshape(1, 1, -1), width)))
    pixels = ops.reshape(rows, [batch, height, width, channels], False)
    target.replace_source_output(ops.transpose(pixels, _TO_NCHW).output(0))


def _value(output: Any) -> Any:
    """What constants come to; None where an output depends on anything else."""
    node = output.get_node()
    kind = node.get_type_name()
    if kind == "Constant":
        return node.data
    if kind not in _ARITHMETIC:
        return None
    values = [_value(source) for source in node.input_values()]
    return None if any(value is None for value in values) else _ARITHMETIC[kind](*values)


def _path(model: Any) -> tuple[list[Any], Any]:
    """The nodes that only the picture passes, one after another, and the input behind the last.

    Empty where the last one's result goes to several.
    """
    [node] = model.get_parameters()
    path: list[Any] = []
    while len(targets := node.output(0).get_target_inputs()) == 1:
        [target] = targets
        node = target.get_node()
        if target.get_index() or node.get_type_name() not in _PICTURE.pattern:
            return path, target
        path.append(node)
    return [], None


def _is_mean(node: Any) -> bool:
    if node.get_type_name() != "Subtract":
        return False
    subtracted = node.input_value(1).get_node()
    return bool(subtracted.get_type_name() == "Constant" and subtracted.shape == [1, 3, 1, 1])


def _rounds_only(path: list[Any]) -> bool:
    """Whether each quantiser gives back what it takes, but for rounding."""
    for node, later in zip(path, path[4:], strict=False):
        if node.get_type_name() == "FakeQuantize":
            low, high = (float(node.input_value(port).get_node().data) for port in (1, 2))
            step = (high - low) / (node.get_attributes()["levels"] - 1)
            scale = later.input_value(1).get_node().data
            if scale.size != 1 or abs(float(scale.reshape(-1)[0]) / step - 1) > 1e-3:
                return False
    return True
