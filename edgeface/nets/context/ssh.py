"""SSH's context module (Najibi et al. 2017), independent per level in RetinaFace (section 4.2)."""

from __future__ import annotations

import torch
from torch import nn

from edgeface.nets.layers import ConvBlock, conv_bn


class ContextModule(nn.Module):
    """Three branches that see 3x3, 5x5 and 7x7 cells, built of 3x3 convolutions.

    Args:
        width: channels.
        leak: slope of the leaky ReLUs.
        block: makes the convolutions; ``deformable_bn`` for RetinaFace's heavy variant.
    """

    def __init__(self, width: int, leak: float, block: ConvBlock = conv_bn) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.branch3 = block(width, half)
        self.reduce = block(width, quarter, activation=nn.LeakyReLU(leak, inplace=True))
        self.branch5 = block(quarter, quarter)
        self.branch7 = nn.Sequential(
            block(quarter, quarter, activation=nn.LeakyReLU(leak, inplace=True)),
            block(quarter, quarter),
        )

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        """Map (N, width, H, W) to the same shape."""
        # The order in which TFLite's converter writes them; files are compared with torch by it.
        reduced = self.reduce(level)
        deep = self.branch7[0](reduced)
        branches = [self.branch3(level), self.branch5(reduced), self.branch7[1](deep)]
        # Before the concatenation, where runtimes fuse it into the convolutions.
        return torch.cat([torch.relu(branch) for branch in branches], dim=1)
