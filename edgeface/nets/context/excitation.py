"""Squeeze-and-Excitation (Hu et al. 2018): each channel weighed by what the whole map shows."""

from __future__ import annotations

import torch
from torch import nn

from edgeface.nets.context import PerLevel
from edgeface.nets.necks.two_step import TwoStepLevels

REDUCTION = 16
NARROWEST = 4


class SqueezeExcitation(nn.Module):
    """Mean of each channel, two 1x1 convolutions, a sigmoid, and the product with the channel.

    Args:
        width: channels; the middle has a sixteenth of them, at least 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        middle = max(width // REDUCTION, NARROWEST)
        self.weights = nn.Sequential(
            nn.Conv2d(width, middle, 1), nn.ReLU(), nn.Conv2d(middle, width, 1), nn.Sigmoid()
        )

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        """Map (N, width, H, W) to the same shape."""
        weights: torch.Tensor = self.weights(level.mean((2, 3), keepdim=True))
        return level * weights


class ExcitedLevels(nn.Module):
    """Squeeze-and-Excitation on what the second step of a two-step detector sees.

    Args:
        width: channels of the levels.
        count: number of levels.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.excite = PerLevel(SqueezeExcitation(width) for _ in range(count))

    def forward(self, levels: TwoStepLevels) -> TwoStepLevels:
        """Map the levels of the second step; the first step's stay."""
        return levels._replace(levels=self.excite(levels.levels))
