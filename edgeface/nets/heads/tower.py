"""DF2S2's detection head: one tower for all levels and tasks (section 3.1, df2s2.txt)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from edgeface.nets.heads.anchor import LevelOutput, per_anchor
from edgeface.nets.layers import init_xavier

CONVOLUTIONS = 4
# Every anchor starts as a face with this probability (RetinaNet, Lin et al. 2017, section 4.1).
PRIOR = 0.01


class TowerOutputs(NamedTuple):
    """What a tower head gives in training.

    Attributes:
        levels: the outputs that have a detection loss, finest first.
        towers: (N, width, H, W) of each level behind the four shared convolutions.
    """

    levels: list[LevelOutput]
    towers: list[torch.Tensor]


class TowerHead(nn.Module):
    """Four 3x3 convolutions and a 3x3 prediction layer each for classes, boxes and landmarks.

    Every level shares them all; the four convolutions also serve all tasks. The class output is
    the logit of a sigmoid. The paper predicts no landmarks: that branch is ours, since edgeface
    promises five landmarks of every model.

    Args:
        width: channels of the levels and of the tower; the paper has 256.
        anchors_per_cell: anchors at each cell of every level.
    """

    def __init__(self, width: int, anchors_per_cell: int) -> None:
        super().__init__()
        self.width = width
        self.anchors_per_cell = anchors_per_cell
        layers: list[nn.Module] = []
        for _ in range(CONVOLUTIONS):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
        self.tower = nn.Sequential(*layers)
        self.classes = nn.Conv2d(width, anchors_per_cell, 3, padding=1)
        self.boxes = nn.Conv2d(width, anchors_per_cell * 4, 3, padding=1)
        self.landmarks = nn.Conv2d(width, anchors_per_cell * 10, 3, padding=1)
        init_xavier(self)
        nn.init.constant_(self.classes.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, levels: list[torch.Tensor]) -> list[LevelOutput]:
        """Map pyramid levels, finest first, to their outputs."""
        return self.training_outputs(levels).levels

    def training_outputs(self, levels: list[torch.Tensor]) -> TowerOutputs:
        """Map pyramid levels, finest first, to their outputs and what their tower gives."""
        towers = [self.tower(level) for level in levels]
        return TowerOutputs([self._predict(tower) for tower in towers], towers)

    def _predict(self, tower: torch.Tensor) -> LevelOutput:
        return LevelOutput(
            *(
                per_anchor(convolution(tower), self.anchors_per_cell)
                for convolution in (self.classes, self.boxes, self.landmarks)
            )
        )
