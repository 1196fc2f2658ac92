"""Receptive field enhancement (section 3.5, refineface.txt): rectangular beside square views."""

from __future__ import annotations

import torch
from torch import nn

# Height and width of the four branches' middle convolutions: 1 x k and k x 1 for k = 3 and 5.
BRANCHES = ((1, 3), (3, 1), (1, 5), (5, 1))


class ReceptiveFieldEnhancement(nn.Module):
    """Four branches of 1x1 to a quarter of the width, 1xk or kx1, 1x1; concatenated; a shortcut.

    It stands where a RetinaNet subnet has its middle two convolutions. Every convolution is
    followed by a ReLU.

    Args:
        width: channels in and out; a multiple of 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter = width // len(BRANCHES)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, quarter, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(quarter, quarter, kernel, padding=(kernel[0] // 2, kernel[1] // 2)),
                nn.ReLU(inplace=True),
                nn.Conv2d(quarter, quarter, 1),
                nn.ReLU(inplace=True),
            )
            for kernel in BRANCHES
        )

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        """Map (N, width, H, W) to the same shape."""
        return torch.cat([branch(level) for branch in self.branches], 1) + level
