"""A static TFLite graph made to accept frames of any size.

LiteRT infers shapes anew when an input is resized, so a convolutional graph is static only by the
constants that name a size: the target shapes of its reshapes, and of its nearest upsampling. The
first become (1, -1, values); the second becomes four copies along the channels and a
depth-to-space of block 2, which names no size and computes exactly the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeface.converters.flatbuffer import read_model, schema, write_model
from edgeface.errors import ConversionError

UPSAMPLING = 2
CHANNEL_AXIS = 3
LAST_DEPRECATED_CODE = 127


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
        operators = []
        for operator in self.graph.operators:
            code = self.model.operatorCodes[operator.opcodeIndex].builtinCode
            if code == codes.RESHAPE:
                self._infer_shape(operator)
            elif code == codes.RESIZE_NEAREST_NEIGHBOR:
                operators.append(self._upsample_by_depth_to_space(operator))
            operators.append(operator)
        self.graph.operators = operators
        for index in self.graph.inputs:
            image = self.graph.tensors[index]
            image.shapeSignature = np.array([1, -1, -1, image.shape[-1]], np.int32)

    def _infer_shape(self, operator: Any) -> None:
        output = self.graph.tensors[operator.outputs[0]]
        if len(output.shape) != 3 or output.shape[0] != 1:
            raise ConversionError(
                f"expected reshapes to (1, anchors, values), got {tuple(output.shape)}; "
                "name the input sizes to get a static graph"
            )
        target = np.array([1, -1, output.shape[2]], np.int32)
        buffer = self.schema.BufferT()
        buffer.data = target.view(np.uint8)
        self.model.buffers.append(buffer)
        shape = self._tensor(output.name + b"_shape", target.shape, self.schema.TensorType.INT32)
        self.graph.tensors[shape].buffer = len(self.model.buffers) - 1
        operator.inputs = [operator.inputs[0], shape]
        operator.builtinOptionsType, operator.builtinOptions = 0, None

    def _upsample_by_depth_to_space(self, operator: Any) -> Any:
        source, target = operator.inputs[0], operator.outputs[0]
        coarse, fine = self.graph.tensors[source], self.graph.tensors[target]
        if tuple(fine.shape[1:3]) != tuple(UPSAMPLING * coarse.shape[1:3]):
            raise ConversionError(
                f"expected nearest upsampling by {UPSAMPLING}, got {tuple(coarse.shape)} to "
                f"{tuple(fine.shape)}; name the input sizes to get a static graph"
            )
        copies = UPSAMPLING**2
        shape = (*coarse.shape[:CHANNEL_AXIS], copies * coarse.shape[CHANNEL_AXIS])
        stacked = self._tensor(fine.name + b"_copies", shape, coarse.type)
        self.graph.tensors[stacked].quantization = coarse.quantization

        concatenation = self.schema.OperatorT()
        concatenation.opcodeIndex = self._opcode(self.schema.BuiltinOperator.CONCATENATION)
        concatenation.inputs, concatenation.outputs = [source] * copies, [stacked]
        concatenation.builtinOptionsType = self.schema.BuiltinOptions.ConcatenationOptions
        concatenation.builtinOptions = self.schema.ConcatenationOptionsT()
        concatenation.builtinOptions.axis = CHANNEL_AXIS

        operator.opcodeIndex = self._opcode(self.schema.BuiltinOperator.DEPTH_TO_SPACE)
        operator.inputs = [stacked]
        operator.builtinOptionsType = self.schema.BuiltinOptions.DepthToSpaceOptions
        operator.builtinOptions = self.schema.DepthToSpaceOptionsT()
        operator.builtinOptions.blockSize = UPSAMPLING
        return concatenation

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
