"""DF2S2's feature fusion pyramid (sections 3.1 and 3.3, df2s2.txt)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from edgeface.nets.backbones import Stage
from edgeface.nets.layers import init_xavier


class FusionBlock(nn.Module):
    """The F-block (equation 1): the deeper map weighs the shallower one, which is then added.

    A transposed convolution brings the deeper map to the shallower one's size and channels in one
    step. The paper gives no kernel; 2x2 of stride 2, as in its code base's mask head, leaves no
    cell out and covers none twice.

    Args:
        shallow: channels of the shallower map, and of the result.
        deep: channels of the deeper map.
    """

    def __init__(self, shallow: int, deep: int) -> None:
        super().__init__()
        self.transform = nn.ConvTranspose2d(deep, shallow, 2, stride=2)
        init_xavier(self)

    def forward(self, shallow: torch.Tensor, deep: torch.Tensor) -> torch.Tensor:
        """Map (N, shallow, 2H, 2W) and (N, deep, H, W) to the fused (N, shallow, 2H, 2W)."""
        fused: torch.Tensor = shallow * self.transform(deep) + shallow
        return fused


class FusionPyramid(nn.Module):
    """F-blocks from top to bottom; sizes and channels stay the backbone's (section 3.1)."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        channels = [stage.channels for stage in stages]
        self.blocks = nn.ModuleList(
            FusionBlock(shallow, deep) for shallow, deep in itertools.pairwise(channels)
        )

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map feature maps, finest first, to fused maps of the same shapes."""
        levels = [features[-1]]
        for block, shallow in zip(
            reversed(list(self.blocks)), reversed(features[:-1]), strict=True
        ):
            levels.insert(0, block(shallow, levels[0]))
        return levels


class PooledLevels(nn.Module):
    """Coarser levels by max pooling the coarsest one in succession (section 3.1)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Append ``count`` levels, each half the size of the one before."""
        levels = list(levels)
        for _ in range(self.count):
            levels.append(functional.max_pool2d(levels[-1], 2))
        return levels
