"""SSH's context module (Najibi et al. 2017), independent per level in RetinaFace (section 4.2)."""

from __future__ import annotations

import torch
from torch import nn

from edgeface.nets.layers import conv_bn


class ContextModule(nn.Module):
    """Three branches that see 3x3, 5x5 and 7x7 cells, built of 3x3 convolutions."""

    def __init__(self, width: int, leak: float) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.branch3 = conv_bn(width, half)
        self.reduce = conv_bn(width, quarter, activation=nn.LeakyReLU(leak, inplace=True))
        self.branch5 = conv_bn(quarter, quarter)
        self.branch7 = nn.Sequential(
            conv_bn(quarter, quarter, activation=nn.LeakyReLU(leak, inplace=True)),
            conv_bn(quarter, quarter),
        )

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        """Map (N, width, H, W) to the same shape."""
        reduced = self.reduce(level)
        branches = [self.branch3(level), self.branch5(reduced), self.branch7(reduced)]
        return torch.relu(torch.cat(branches, dim=1))
