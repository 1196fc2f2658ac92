"""Feature pyramid (Lin et al. 2017), as RetinaFace uses it (section 4.2, retinaface.txt)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from edgeface.nets.backbones import Stage
from edgeface.nets.layers import ConvBlock, conv_bn, rectifier


class FeaturePyramid(nn.Module):
    """Lateral 1x1 convolutions, top-down addition of the upsampled coarser level, 3x3 smoothing.

    Inputs need sides that are multiples of the coarsest stride, as ``edgeface.preprocess`` pads
    them, so that every level is exactly twice the next.

    Args:
        stages: feature maps of the backbone, finest first.
        width: channels of every level.
        leak: slope of the leaky ReLUs; 0 makes them plain ones.
        smoothing: makes the 3x3 convolutions, such as ``deformable_bn`` for RetinaFace's heavy
            variant and ``separable_bn``.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        width: int,
        leak: float,
        smoothing: ConvBlock = conv_bn,
    ) -> None:
        super().__init__()

        self.lateral = nn.ModuleList(
            conv_bn(stage.channels, width, 1, activation=rectifier(leak)) for stage in stages
        )
        self.smooth = nn.ModuleList(
            smoothing(width, width, activation=rectifier(leak)) for _ in stages[:-1]
        )

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


class CoarserLevel(nn.Module):
    """A neck with one level more: a 3x3 convolution of stride 2 on the backbone's coarsest map.

    RetinaFace's P6, on C5 (section 4.2, retinaface.txt).

    Args:
        neck: makes the finer levels.
        channels: channels of the coarsest map.
        width: channels of every level.
        leak: slope of the leaky ReLU.
    """

    def __init__(self, neck: nn.Module, channels: int, width: int, leak: float) -> None:
        super().__init__()
        self.finer = neck
        self.coarser = conv_bn(channels, width, stride=2, activation=rectifier(leak))

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map feature maps, finest first, to the neck's levels and a coarser one."""
        return [*self.finer(features), self.coarser(features[-1])]
