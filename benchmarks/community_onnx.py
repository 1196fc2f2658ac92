"""A RetinaFace checkpoint as ONNX in the layout that its PyTorch repositories export.

    python benchmarks/community_onnx.py CHECKPOINT retinaface.onnx
    edgeface bench --against retinaface.onnx

It takes the place of the repositories' own ``convert_to_onnx``, with height and width left open:
input float32 (N, 3, H, W), BGR less the mean; outputs boxes (N, A, 4), softmax of background and
face (N, A, 2) and landmarks (N, A, 10) over all levels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from edgeface.bundle import write_atomic
from edgeface.converters.community import load_community
from edgeface.converters.quiet import quiet
from edgeface.nets import DetectorNet

CELLS = (3, 4)


class CommunityGraph(nn.Module):
    """A net in evaluation mode with the outputs of the PyTorch repositories' test phase."""

    def __init__(self, net: DetectorNet) -> None:
        super().__init__()
        self.net = net.eval()
        self.net._mean.zero_()

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the net on pictures that the mean was subtracted from."""
        classes, boxes, landmarks = (
            torch.cat(tensors, dim=1)
            for tensors in zip(
                *((one.logits, one.deltas, one.landmarks) for one in self.net(picture)),
                strict=True,
            )
        )
        return boxes, classes.softmax(dim=-1), landmarks


def to_onnx(net: DetectorNet) -> bytes:
    """Export; the net is changed."""
    stride = net.anchors.max_stride
    rows, columns = CELLS
    sizes = {2: stride * Dim("rows"), 3: stride * Dim("columns")}
    with quiet():
        program: Any = torch.onnx.export(
            CommunityGraph(net),
            (torch.zeros(1, 3, rows * stride, columns * stride),),
            dynamo=True,
            input_names=["input0"],
            output_names=["output0", "590", "589"],
            dynamic_shapes={"picture": sizes},
            external_data=False,
            verbose=False,
        )
    content: bytes = program.model_proto.SerializeToString()
    return content


def main() -> int:
    """Convert."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--preset", default="retinaface_mobilenet025")
    args = parser.parse_args()
    write_atomic(args.output, to_onnx(load_community(args.checkpoint, args.preset)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
