"""FANet's feature agglomeration (sections 3.1 to 3.3, fanet.txt)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from edgeface.nets.backbones import Stage
from edgeface.nets.layers import conv_bn, init_xavier

BRANCHES: tuple[tuple[int, int], ...] = ((1, 1), (1, 3), (3, 1), (3, 3))
DEEP_SHARE = 8
DEEPEST = 4


def _block(inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1) -> nn.Module:
    return conv_bn(inputs, outputs, kernel, stride, activation=nn.ReLU(inplace=True))


class AgglomerationBlock(nn.Module):
    """The A-block (section 3.2, figure 2): a shallow map, enhanced, takes context from a deep one.

    The shallow map is reduced to ``width`` channels, and seen by four branches with a quarter of
    them each. The deep map is reduced to an eighth of ``width`` and upsampled bilinearly. A 3x3
    convolution smooths the two together.

    Args:
        shallow: channels of the shallow map.
        deep: channels of the deep map.
        width: channels of the result: the paper's X and N; a multiple of 8.
        context: the four branches; without them the shallow map is only reduced (table 2).
    """

    def __init__(self, shallow: int, deep: int, width: int, context: bool = True) -> None:
        super().__init__()
        self.reduce = _block(shallow, width, 1)
        branches = BRANCHES if context else ()
        self.branches = nn.ModuleList(
            _block(width, width // len(BRANCHES), kernel) for kernel in branches
        )
        self.deep = _block(deep, width // DEEP_SHARE, 1)
        self.smooth = _block(width + width // DEEP_SHARE, width, 3)

    def forward(self, shallow: torch.Tensor, deep: torch.Tensor) -> torch.Tensor:
        """Map (N, shallow, 2H, 2W) and (N, deep, H, W) to (N, width, 2H, 2W)."""
        reduced = self.reduce(shallow)
        enhanced = [branch(reduced) for branch in self.branches] or [reduced]
        semantics = functional.interpolate(
            self.deep(deep), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        smoothed: torch.Tensor = self.smooth(torch.cat([*enhanced, semantics], 1))
        return smoothed


class Agglomeration(nn.ModuleList):
    """The A-blocks that make one hierarchy of another, finest level first."""

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map pyramid levels to those of the next hierarchy; coarser ones stay as they are."""
        agglomerated = [block(levels[level], levels[level + 1]) for level, block in enumerate(self)]
        return agglomerated + levels[len(self) :]


class AgglomerationPyramid(nn.Module):
    """Six levels in a hierarchy of pyramids, each agglomerated from the one before (equation 2).

    Agglomeration starts from the fourth level, C5, as section 3.3 has it ("conv_fc7"), and each
    further hierarchy starts one level finer, as the superscripts of that section's six final maps
    have it (3, 3, 3, 3, 2, 1 in the general form): a map that a hierarchy does not change is the
    one of the hierarchy before.

    Args:
        stages: four feature maps of the backbone, strides 4 to 32, finest first.
        width: channels of agglomerated maps, a multiple of 8.
        hierarchy: number of pyramids, 1 to 4; the paper's final net has 3, and 1 is plain SSD.
        context: see ``AgglomerationBlock``.

    Attributes:
        channels: of each level of each hierarchy, finest first.
        changed: for each hierarchy but the last, how many of its finest levels the next one
            replaces.
    """

    def __init__(
        self, stages: Sequence[Stage], width: int, hierarchy: int = 3, context: bool = True
    ) -> None:
        super().__init__()
        coarsest = stages[-1].channels
        # SSD's conv6 and conv7, at the paper's widths where ``width`` is its 256.
        self.coarser = nn.ModuleList(
            [
                nn.Sequential(_block(coarsest, width, 1), _block(width, 2 * width, 3, 2)),
                nn.Sequential(_block(2 * width, width // 2, 1), _block(width // 2, width, 3, 2)),
            ]
        )
        self.changed = [DEEPEST - number for number in range(1, hierarchy)]
        self.channels = [[*(stage.channels for stage in stages), 2 * width, width]]
        self.hierarchies = nn.ModuleList()
        for count in self.changed:
            before = self.channels[-1]
            self.hierarchies.append(
                Agglomeration(
                    AgglomerationBlock(before[level], before[level + 1], width, context)
                    for level in range(count)
                )
            )
            self.channels.append([width] * count + before[count:])
        init_xavier(self)

    def forward(self, features: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        """Map four feature maps to the hierarchies of six levels, the deployed one last."""
        levels = list(features)
        for coarser in self.coarser:
            levels.append(coarser(levels[-1]))
        hierarchies = [levels]
        for agglomeration in self.hierarchies:
            hierarchies.append(agglomeration(hierarchies[-1]))
        return hierarchies
