"""Context modules: enlarge the receptive field of a pyramid level, size and width unchanged."""

from __future__ import annotations

import torch
from torch import nn


class PerLevel(nn.ModuleList):
    """Independent modules, one for each pyramid level."""

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map each level by its own module."""
        return [module(level) for module, level in zip(self, levels, strict=True)]
