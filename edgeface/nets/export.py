"""The graph contract: what every exported model takes and gives."""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgeface.anchors import AnchorSpec
from edgeface.nets.detector import DetectorNet
from edgeface.nets.group_norm import deploy_group_norm
from edgeface.nets.heads.anchor import LevelHead

INPUT_NAME = "image"


def output_names(anchors: AnchorSpec) -> list[str]:
    """Names of the graph's outputs, in order: logit, delta and landmark of each level."""
    return [
        f"{kind}_{level.stride}"
        for level in anchors.levels
        for kind in ("logit", "delta", "landmark")
    ]


class ExportGraph(nn.Module):
    """A trained net in deployment form, in evaluation mode, with folded class logits.

    Takes uint8 (N, H, W, 3) BGR, the camera's own bytes; returns float32 tensors in the order of
    ``output_names``: (N, A, 1), (N, A, 4) and (N, A, 10) for the A anchors of each level.
    """

    def __init__(self, net: DetectorNet) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).eval()
        for module in self.net.modules():
            if isinstance(module, LevelHead):
                module.fold_softmax()
        deploy_group_norm(self.net)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the net on uint8 NHWC pictures; cast first, for TensorRT transposes no uint8."""
        levels = self.net(image.float().permute(0, 3, 1, 2))
        return tuple(tensor for level in levels for tensor in level)
