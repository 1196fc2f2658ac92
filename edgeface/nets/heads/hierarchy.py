"""FANet's head: predictions from the last hierarchy of feature maps (section 3.3, fanet.txt)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from edgeface.anchors import AnchorLevel
from edgeface.nets.heads.anchor import LevelHead, LevelOutput
from edgeface.nets.layers import init_xavier

KERNEL = 3


class LevelHeads(nn.ModuleList):
    """SSD's 3x3 prediction layers of a hierarchy's finest levels.

    Args:
        channels: of the levels, finest first.
        levels: their anchors; as many levels get a head as both lists have.
    """

    def __init__(self, channels: Iterable[int], levels: Iterable[AnchorLevel]) -> None:
        super().__init__(
            LevelHead(width, level.per_cell, KERNEL)
            for width, level in zip(channels, levels, strict=False)
        )
        init_xavier(self)

    def forward(self, levels: list[torch.Tensor]) -> list[LevelOutput]:
        """Map pyramid levels, finest first, to the outputs of those that have a head."""
        return [head(level) for head, level in zip(self, levels, strict=False)]


class HierarchyHead(nn.Module):
    """Predictions from the last hierarchy; the others are not looked at.

    The paper predicts no landmarks: that branch is ours, since edgeface promises five landmarks
    of every model.
    """

    def __init__(self, channels: Iterable[int], levels: Iterable[AnchorLevel]) -> None:
        super().__init__()
        self.levels = LevelHeads(channels, levels)

    def forward(self, hierarchies: list[list[torch.Tensor]]) -> list[LevelOutput]:
        """Map hierarchies of pyramid levels to the outputs of the last one, finest level first."""
        outputs: list[LevelOutput] = self.levels(hierarchies[-1])
        return outputs

    def training_outputs(self, hierarchies: list[list[torch.Tensor]]) -> list[LevelOutput]:
        """Return what ``forward`` returns; earlier hierarchies have heads in the objective."""
        return self.forward(hierarchies)
