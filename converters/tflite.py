"""Torch to TFLite through litert-torch: one float32 graph, for frames of any size by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeface.converters.flatbuffer import name_layers
from edgeface.converters.inputsize import check_input_sizes
from edgeface.converters.padding import pad_with_zeros
from edgeface.converters.quiet import quiet
from edgeface.converters.resizable import make_resizable
from edgeface.errors import ConversionError, missing_extra

if TYPE_CHECKING:
    from edgeface.nets import DetectorNet

SIGNATURE = "serving_default"
TRACED_SIZE = (640, 480)


def to_tflite(net: DetectorNet, input_sizes: Sequence[tuple[int, int]] = ()) -> bytes:
    """Convert a net to the graph contract of ``edgeface.nets.export`` as a TFLite file.

    The batch is 1. Inputs and outputs carry the contract's names in every signature.

    Args:
        net: a trained net; it is not changed.
        input_sizes: (width, height) pairs for a static file, as NPU and GPU delegates want it, with
            one signature ``size_{width}x{height}`` each over shared weights. Empty: one signature
            ``serving_default`` of 640 x 480, or what its stride makes of that, that the
            interpreter can resize to any multiples of the net's coarsest stride.

    Returns:
        Content of the ``.tflite`` file.

    Raises:
        MissingDependencyError: torch or litert-torch is not installed.
        InvalidOptionError: a size is no multiple of the net's coarsest stride.
        ConversionError: litert-torch cannot convert the net, or the net has a deformable
            convolution, which a TFLite file can hold for given input sizes only.
    """
    check_input_sizes(input_sizes, net.anchors.max_stride)
    try:
        with quiet():
            import litert_torch
            import torch
    except ImportError as error:
        raise missing_extra("litert-torch", "convert") from error
    from edgeface.nets.export import INPUT_NAME, ExportGraph, output_names

    if not input_sizes:
        _refuse_layers_of_one_size(net)
    graph = ExportGraph(net)
    names = output_names(net.anchors)

    class NamedOutputs(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return dict(zip(names, graph(image), strict=True))

    stride = net.anchors.max_stride
    wide, high = (-(-side // stride) * stride for side in TRACED_SIZE)
    signatures = {f"size_{width}x{height}": (width, height) for width, height in input_sizes}
    converter = litert_torch
    try:
        with quiet():
            for name, (width, height) in (signatures or {SIGNATURE: (wide, high)}).items():
                sample = torch.zeros(1, height, width, 3, dtype=torch.uint8)
                converter = converter.signature(
                    name, NamedOutputs().eval(), sample_kwargs={INPUT_NAME: sample}
                )
            content: bytes = converter.convert().model_content()
    except Exception as error:
        raise ConversionError(
            f"expected preset '{net.preset}' to convert to TFLite, got {error}; "
            "check the versions that the extra 'convert' pins"
        ) from error
    content = pad_with_zeros(name_layers(content, _layers(net)))
    return content if input_sizes else make_resizable(content)


def _refuse_layers_of_one_size(net: DetectorNet) -> None:
    """Raise ConversionError where a TFLite graph would hold positions of one input size."""
    from edgeface.nets.deformable import DeformableConv2d

    for name, module in net.named_modules():
        if isinstance(module, DeformableConv2d):
            raise ConversionError(
                f"expected layers that TFLite can run at any size, got the deformable convolution "
                f"'{name}'; name the input sizes (--input-size 640x512), export to ONNX alone "
                "(--target onnx), or train with the preset's option deformable=off"
            )


def _layers(net: DetectorNet) -> list[str]:
    """Names of the layers with kernels, in the order in which they run."""
    import torch
    from torch import nn

    from edgeface.nets.export import ExportGraph

    graph, names = ExportGraph(net), list[str]()
    for name, module in graph.net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.register_forward_hook(lambda *_, name=name: names.append(name))
    with torch.inference_mode():
        side = 2 * net.anchors.max_stride
        graph(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    return names
