"""Feature pyramid (Lin et al. 2017), as RetinaFace uses it (section 4.2, retinaface.txt)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from edgeface.nets.backbones import Stage
from edgeface.nets.layers import conv_bn


class FeaturePyramid(nn.Module):
    """Lateral 1x1 convolutions, top-down addition of the upsampled coarser level, 3x3 smoothing.

    Inputs need sides that are multiples of the coarsest stride, as ``edgeface.preprocess`` pads
    them, so that every level is exactly twice the next.
    """

    def __init__(self, stages: Sequence[Stage], width: int, leak: float) -> None:
        super().__init__()

        def block(inputs: int, kernel: int) -> nn.Sequential:
            return conv_bn(inputs, width, kernel, activation=nn.LeakyReLU(leak, inplace=True))

        self.lateral = nn.ModuleList(block(stage.channels, 1) for stage in stages)
        self.smooth = nn.ModuleList(block(width, 3) for _ in stages[:-1])

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map feature maps, finest first, to levels of ``width`` channels of the same sizes."""
        laterals = [lateral(level) for lateral, level in zip(self.lateral, features, strict=True)]
        levels = [laterals[-1]]
        for lateral, smooth in zip(
            reversed(laterals[:-1]), reversed(list(self.smooth)), strict=True
        ):
            coarse = functional.interpolate(levels[0], scale_factor=2.0, mode="nearest")
            levels.insert(0, smooth(lateral + coarse))
        return levels
