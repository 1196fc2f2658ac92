"""FANet's head: predictions from the last hierarchy of feature maps (section 3.3, fanet.txt)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from edgeface.anchors import AnchorLevel
from edgeface.nets.heads.anchor import LevelHead, LevelOutput
from edgeface.nets.layers import init_xavier

KERNEL = 3


def level_heads(channels: Sequence[int], levels: Sequence[AnchorLevel]) -> nn.ModuleList:
    """SSD's 3x3 prediction layers for some levels, each with its own channels."""
    heads = nn.ModuleList(
        LevelHead(width, level.per_cell, KERNEL)
        for width, level in zip(channels, levels, strict=True)
    )
    init_xavier(heads)
    return heads


class HierarchyHead(nn.Module):
    """One ``LevelHead`` per level of the last hierarchy; the others are not looked at.

    The paper predicts no landmarks: that branch is ours, since edgeface promises five landmarks
    of every model.
    """

    def __init__(self, channels: Sequence[int], levels: Sequence[AnchorLevel]) -> None:
        super().__init__()
        self.levels = level_heads(channels, levels)

    def forward(self, hierarchies: list[list[torch.Tensor]]) -> list[LevelOutput]:
        """Map hierarchies of pyramid levels to the outputs of the last one, finest level first."""
        return [head(level) for head, level in zip(self.levels, hierarchies[-1], strict=True)]

    def training_outputs(self, hierarchies: list[list[torch.Tensor]]) -> list[LevelOutput]:
        """Return what ``forward`` returns; earlier hierarchies have heads in the objective."""
        outputs: list[LevelOutput] = self(hierarchies)
        return outputs
