"""The pyramid of two-step detectors (section 3 and figure 3, refineface.txt)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from edgeface.nets.backbones import Stage
from edgeface.nets.layers import conv_bn, separable_bn


class TwoStepLevels(NamedTuple):
    """What each step sees, in levels of equal width, finest first.

    Attributes:
        classified: C2 to C4, for the first classification; empty without one.
        refined: C5 to C7, for the first regression; empty without one.
        levels: P2 to P7, for the second step; strides 4 to 128.
    """

    classified: list[torch.Tensor]
    refined: list[torch.Tensor]
    levels: list[torch.Tensor]


class TwoStepPyramid(nn.Module):
    """FPN over C2 to C5 with P6 and P7 below P5, and C6 and C7 below C5 for the first step.

    The first step sees C2 to C5 behind their lateral 1x1 convolutions, which bring them to the
    width that the classifier shares over both steps. C6 and C7, P6 and P7 are 3x3 convolutions
    of stride 2.

    Args:
        stages: four feature maps of the backbone, finest first: C2 to C5.
        width: channels of every level.
        classified_twice: whether C2 to C4 go to the first step.
        refined_twice: whether C5 to C7 go to the first step.
        separable: make the 3x3 convolutions depthwise-separable.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        width: int,
        *,
        classified_twice: bool,
        refined_twice: bool,
        separable: bool,
    ) -> None:
        super().__init__()
        conv3x3 = separable_bn if separable else conv_bn

        def block(inputs: int, stride: int) -> nn.Sequential:
            return conv3x3(inputs, width, stride=stride, activation=nn.ReLU(inplace=True))

        self.lateral = nn.ModuleList(
            conv_bn(stage.channels, width, 1, activation=nn.ReLU(inplace=True)) for stage in stages
        )
        self.smooth = nn.ModuleList(block(width, 1) for _ in stages)
        self.coarser = nn.ModuleList(block(width, 2) for _ in range(2))
        self.first_coarser = nn.ModuleList()
        if refined_twice:
            self.first_coarser.extend((block(stages[-1].channels, 2), block(width, 2)))
        self.classified_twice = classified_twice

    def forward(self, features: list[torch.Tensor]) -> TwoStepLevels:
        """Map C2 to C5 to both steps' levels."""
        laterals = [lateral(level) for lateral, level in zip(self.lateral, features, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            upsampled = functional.interpolate(merged[0], scale_factor=2.0, mode="nearest")
            merged.insert(0, lateral + upsampled)
        levels = [smooth(level) for smooth, level in zip(self.smooth, merged, strict=True)]
        for coarser in self.coarser:
            levels.append(coarser(levels[-1]))
        classified = laterals[:-1] if self.classified_twice else []
        refined = laterals[-1:] if len(self.first_coarser) else []
        coarse = features[-1]
        for coarser in self.first_coarser:
            coarse = coarser(coarse)
            refined.append(coarse)
        return TwoStepLevels(classified, refined, levels)
