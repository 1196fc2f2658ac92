"""Torch to ONNX: one float32 graph for every batch, height and width, or for fixed ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeface.converters.inputsize import Size, check_input_sizes
from edgeface.converters.quiet import quiet
from edgeface.errors import ConversionError, missing_extra

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

# Traced away from square and from batch 1, so that no size is mistaken for a constant.
TRACE_CELLS = (2, 3, 4)
COPY_BATCH, INFER = 0, -1
NAMES = ("batch", "height", "width")


def to_onnx(net: DetectorNet, input_size: Size | None = None) -> bytes:
    """Convert a net to the graph contract of ``edgeface.nets.export`` as an ONNX file.

    The batch is dynamic. Batch norms are folded and weights are inside the file.

    Args:
        net: a trained net; it is not changed.
        input_size: (width, height) of a static graph, as NPUs want it. None: height and width are
            dynamic too, in multiples of the net's coarsest stride.

    Returns:
        Content of the ``.onnx`` file.

    Raises:
        MissingDependencyError: torch, onnx or onnxscript is not installed.
        InvalidOptionError: a side is no multiple of the net's coarsest stride.
        ConversionError: torch cannot export the net.
    """
    if input_size is not None:
        check_input_sizes([input_size], net.anchors.max_stride)
    try:
        import onnxscript  # noqa: F401
        import torch
        from onnx_ir import to_proto
        from torch.export import Dim
    except ImportError as error:
        raise missing_extra(error.name or "onnx", "convert") from error
    from edgeface.nets.export import INPUT_NAME, ExportGraph, output_names

    stride = net.anchors.max_stride
    batch, rows, columns = TRACE_CELLS
    width, height = input_size or (columns * stride, rows * stride)
    sample = torch.zeros(batch, height, width, 3, dtype=torch.uint8)
    sizes = {0: Dim("batch")}
    if input_size is None:
        sizes |= {1: stride * Dim("rows"), 2: stride * Dim("columns")}
    try:
        with quiet():
            program: Any = torch.onnx.export(
                ExportGraph(net),
                (sample,),
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=output_names(net.anchors),
                dynamic_shapes={"image": sizes},
                external_data=False,
                verbose=False,
            )
            _tidy(program.model, [NAMES[axis] for axis in sizes])
    except Exception as error:
        raise ConversionError(
            f"expected preset '{net.preset}' to export to ONNX, got {error}; "
            "check the versions that the extra 'convert' pins"
        ) from error
    content: bytes = to_proto(program.model).SerializeToString()
    return content


def fix_batch(content: bytes, batch: int) -> bytes:
    """Make the batch of an ONNX graph static, quantised or not.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "convert") from error
    model = onnx.load_from_string(content)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return bytes(model.SerializeToString())


def _tidy(model: Any, dynamic: Sequence[str]) -> None:
    """Make reshapes constant, name the dimensions, and drop traces of the exporting machine."""
    import numpy as np
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

    graph = model.graph
    for axis, name in enumerate(dynamic):
        graph.inputs[0].shape[axis] = name
    for output in graph.outputs:
        values = output.shape[2]
        output.shape[0] = NAMES[0]
        if len(dynamic) > 1:
            output.shape[1] = f"anchors_{output.name.rsplit('_')[-1]}"
        shape = onnx_ir.Value(
            name=f"{output.name}_shape",
            const_value=onnx_ir.tensor(np.array([COPY_BATCH, INFER, values], np.int64)),
        )
        graph.register_initializer(shape)
        reshape = output.producer()
        reshape.replace_input_with(1, shape)
        reshape.attributes.pop("allowzero", None)
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    RemoveUnusedNodesPass()(model)
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
