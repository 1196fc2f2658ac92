"""A static TFLite graph made to accept frames of any size.

LiteRT infers shapes anew when an input is resized, so a convolutional graph is static only by the
constants that name a size: the target shapes of reshapes, of upsampling and of transposed
convolutions. The first become (1, -1, values). The others compute four values from each cell, the
phases, and a depth-to-space of block 2 puts them in place, which names no size:

- nearest upsampling: the phases are four copies.
- bilinear upsampling, corners not aligned: a 3x3 convolution with the weights 3/4 and 1/4 in each
  direction, on a map whose border is repeated.
- a 2x2 transposed convolution of stride 2: a 1x1 convolution with the four taps as outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeface.converters.flatbuffer import read_model, schema, write_model
from edgeface.errors import ConversionError

UPSAMPLING = 2
CHANNEL_AXIS = 3
# Suffixes of new tensors; by the second a convolution is known as none of the net's.
PHASES, INTERPOLATION = b"_phases", b"_interpolation"
LAST_DEPRECATED_CODE = 127
# What the cell before, the cell and the cell after give to each half of a cell, upsampled.
TAPS = np.array([[0.25, 0.75, 0], [0, 0.75, 0.25]], np.float32)
OPTIONS = {
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "MIRROR_PAD": "MirrorPadOptions",
}


def make_resizable(content: bytes) -> bytes:
    """Replace the constants of a TFLite file that fix the height and width of its input.

    Args:
        content: a file with one subgraph, NHWC, batch 1, whose reshapes give (1, N, values).

    Returns:
        Content of the new file; its input's height and width are marked dynamic.

    Raises:
        MissingDependencyError: ai-edge-litert is not installed.
        ConversionError: the graph names sizes in other ways.
    """
    model = read_model(content)
    _Rewriter(schema(), model).run()
    return write_model(model)


class _Rewriter:
    def __init__(self, schema: Any, model: Any) -> None:
        self.schema = schema
        self.model = model
        if len(model.subgraphs) != 1:
            raise ConversionError(
                f"expected a TFLite graph with 1 subgraph, got {len(model.subgraphs)}; "
                "convert one input size"
            )
        self.graph = model.subgraphs[0]

    def run(self) -> None:
        codes = self.schema.BuiltinOperator
        replacements = {
            codes.RESHAPE: self._infer_shape,
            codes.RESIZE_NEAREST_NEIGHBOR: self._copy,
            codes.RESIZE_BILINEAR: self._interpolate,
            codes.TRANSPOSE_CONV: self._convolve,
        }
        operators = []
        for operator in self.graph.operators:
            code = self.model.operatorCodes[operator.opcodeIndex].builtinCode
            replace = replacements.get(code)
            operators += replace(operator) if replace else [operator]
        self.graph.operators = operators
        self._empty_unused_buffers()
        for index in self.graph.inputs:
            image = self.graph.tensors[index]
            image.shapeSignature = np.array([1, -1, -1, image.shape[-1]], np.int32)

    def _infer_shape(self, operator: Any) -> list[Any]:
        output = self.graph.tensors[operator.outputs[0]]
        if tuple(output.shape[:-1]) == (1, 1, 1):  # a vector: no traced map has a single cell
            return [operator]
        if len(output.shape) != 3 or output.shape[0] != 1:
            raise ConversionError(
                f"expected reshapes to (1, anchors, values), got {tuple(output.shape)}; "
                "name the input sizes to get a static graph"
            )
        target = np.array([1, -1, output.shape[2]], np.int32)
        shape = self._constant(output.name + b"_shape", target, self.schema.TensorType.INT32)
        operator.inputs = [operator.inputs[0], shape]
        operator.builtinOptionsType, operator.builtinOptions = 0, None
        return [operator]

    def _copy(self, operator: Any) -> list[Any]:
        source = operator.inputs[0]
        phases, upsampling = self._upsampling(source, operator.outputs[0], PHASES)
        concatenation = self._operator("CONCATENATION", [source] * UPSAMPLING**2, [phases])
        concatenation.builtinOptions.axis = CHANNEL_AXIS
        return [concatenation, upsampling]

    def _interpolate(self, operator: Any) -> list[Any]:
        if not operator.builtinOptions.halfPixelCenters or operator.builtinOptions.alignCorners:
            raise ConversionError(
                "expected bilinear upsampling with corners not aligned, got another; "
                "name the input sizes to get a static graph"
            )
        source = operator.inputs[0]
        coarse = self.graph.tensors[source]
        phases, upsampling = self._upsampling(source, operator.outputs[0], INTERPOLATION)

        rows, columns, channels = (int(side) for side in coarse.shape[1:])
        padded = self._tensor(
            coarse.name + b"_bordered", (1, rows + 2, columns + 2, channels), coarse.type
        )
        border = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
        amounts = self._constant(coarse.name + b"_border", border, self.schema.TensorType.INT32)
        repeat = self._operator("MIRROR_PAD", [source, amounts], [padded])
        repeat.builtinOptions.mode = self.schema.MirrorPadMode.SYMMETRIC

        weights = np.zeros((*TAPS.shape[:1], *TAPS.shape[:1], channels, 3, 3, channels), np.float32)
        for channel in range(channels):
            weights[:, :, channel, :, :, channel] = np.einsum("ay,bx->abyx", TAPS, TAPS)
        kernel = weights.reshape(-1, 3, 3, channels)
        return [repeat, self._convolution(padded, kernel, None, phases), upsampling]

    def _convolve(self, operator: Any) -> list[Any]:
        _, weight, source, *bias = operator.inputs
        taps = self._value(weight)
        *kernel, inputs = taps.shape[1:]
        options = operator.builtinOptions
        if [*kernel, options.strideH, options.strideW] != [UPSAMPLING] * 4:
            raise ConversionError(
                f"expected transposed convolutions of kernel and stride {UPSAMPLING}, got kernel "
                f"{kernel}, stride {options.strideH}; name the input sizes to get a static graph"
            )
        phases, upsampling = self._upsampling(source, operator.outputs[0], PHASES)
        weights = taps.transpose(1, 2, 0, 3).reshape(-1, 1, 1, inputs)
        offsets = np.tile(self._value(bias[0]), UPSAMPLING**2) if bias else None
        convolution = self._convolution(source, weights, offsets, phases)
        convolution.builtinOptions.fusedActivationFunction = options.fusedActivationFunction
        return [convolution, upsampling]

    def _upsampling(self, source: int, target: int, suffix: bytes) -> tuple[int, Any]:
        """A new tensor of phases, and the depth-to-space that puts them in place."""
        coarse, fine = self.graph.tensors[source], self.graph.tensors[target]
        if tuple(fine.shape[1:3]) != tuple(UPSAMPLING * coarse.shape[1:3]):
            raise ConversionError(
                f"expected upsampling by {UPSAMPLING}, got {tuple(coarse.shape)} to "
                f"{tuple(fine.shape)}; name the input sizes to get a static graph"
            )
        channels = UPSAMPLING**2 * fine.shape[CHANNEL_AXIS]
        shape = (*coarse.shape[:CHANNEL_AXIS], channels)
        phases = self._tensor(fine.name + suffix, shape, fine.type)
        self.graph.tensors[phases].quantization = fine.quantization
        operator = self._operator("DEPTH_TO_SPACE", [phases], [target])
        operator.builtinOptions.blockSize = UPSAMPLING
        return phases, operator

    def _convolution(
        self, source: int, weights: np.ndarray, bias: np.ndarray | None, output: int
    ) -> Any:
        name, kind = self.graph.tensors[output].name, self.schema.TensorType.FLOAT32
        bias = np.zeros(len(weights), np.float32) if bias is None else bias
        constants = [
            self._constant(name + b"_weights", weights, kind),
            self._constant(name + b"_bias", bias, kind),
        ]
        convolution = self._operator("CONV_2D", [source, *constants], [output])
        convolution.builtinOptions.padding = self.schema.Padding.VALID
        convolution.builtinOptions.strideH = convolution.builtinOptions.strideW = 1
        return convolution

    def _operator(self, code: str, inputs: list[int], outputs: list[int]) -> Any:
        kind = OPTIONS[code]
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self._opcode(getattr(self.schema.BuiltinOperator, code))
        operator.inputs, operator.outputs = inputs, outputs
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
        operator.builtinOptions = getattr(self.schema, f"{kind}T")()
        return operator

    def _value(self, tensor: int) -> np.ndarray:
        found = self.graph.tensors[tensor]
        data = np.asarray(self.model.buffers[found.buffer].data, np.uint8)
        return data.view(np.float32).reshape(found.shape)

    def _constant(self, name: bytes, value: np.ndarray, kind: int) -> int:
        buffer = self.schema.BufferT()
        buffer.data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        self.model.buffers.append(buffer)
        tensor = self._tensor(name, value.shape, kind)
        self.graph.tensors[tensor].buffer = len(self.model.buffers) - 1
        return tensor

    def _empty_unused_buffers(self) -> None:
        operands = (index for one in self.graph.operators for index in one.inputs)
        used = {self.graph.tensors[index].buffer for index in operands if index >= 0}
        for tensor in self.graph.tensors:
            if tensor.buffer not in used:
                self.model.buffers[tensor.buffer].data = None

    def _tensor(self, name: bytes, shape: tuple[int, ...], kind: int) -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, kind, 0
        tensor.shape = np.array(shape, np.int32)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _opcode(self, builtin: int) -> int:
        for index, code in enumerate(self.model.operatorCodes):
            if code.builtinCode == builtin:
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode = builtin
        code.deprecatedBuiltinCode = min(builtin, LAST_DEPRECATED_CODE)
        code.version = 1
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1
