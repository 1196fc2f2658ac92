"""RetinaFace's loss head: 1x1 convolutions on every level (section 4.2, retinaface.txt)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from edgeface.anchors import AnchorLevel


class LevelOutput(NamedTuple):
    """Raw outputs of one pyramid level; N pictures, A anchors in row-major order of the cells.

    Attributes:
        logits: (N, A, 2) background and face; (N, A, 1) after ``fold_softmax``, and where a head
            learns the face's logit itself.
        deltas: (N, A, 4) box deltas in units of the anchor and its variances.
        landmarks: (N, A, 10) five x, y offsets from the anchor's centre, likewise.
    """

    logits: torch.Tensor
    deltas: torch.Tensor
    landmarks: torch.Tensor


def per_anchor(maps: torch.Tensor, anchors_per_cell: int) -> torch.Tensor:
    """Rearrange (N, anchors_per_cell * V, H, W) to the V values of each anchor: (N, A, V)."""
    values = maps.shape[1] // anchors_per_cell
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, values)


class LevelHead(nn.Module):
    """Class, box and landmark convolutions of one level.

    Args:
        width: channels of the level.
        anchors_per_cell: anchors of each cell.
        kernel: side of the convolutions.
        prior: probability at which every anchor starts as a face; None for torch's own biases.
    """

    def __init__(
        self, width: int, anchors_per_cell: int, kernel: int = 1, prior: float | None = None
    ) -> None:
        super().__init__()
        padding = kernel // 2
        self.classes = nn.Conv2d(width, anchors_per_cell * 2, kernel, padding=padding)
        self.boxes = nn.Conv2d(width, anchors_per_cell * 4, kernel, padding=padding)
        self.landmarks = nn.Conv2d(width, anchors_per_cell * 10, kernel, padding=padding)
        self.anchors_per_cell = anchors_per_cell
        if prior is not None:
            logits = torch.tensor([0.0, math.log(prior / (1 - prior))])
            self.classes.bias = nn.Parameter(logits.repeat(anchors_per_cell))

    def forward(self, level: torch.Tensor) -> LevelOutput:
        """Map (N, width, H, W) to the outputs of its H * W * anchors_per_cell anchors."""
        return LevelOutput(
            *(
                per_anchor(convolution(level), self.anchors_per_cell)
                for convolution in (self.classes, self.boxes, self.landmarks)
            )
        )

    @torch.no_grad()
    def fold_softmax(self) -> None:
        """Replace the two class channels of each anchor by their difference: the face's logit."""
        old = self.classes
        kernel = old.kernel_size[0]
        new = nn.Conv2d(old.in_channels, self.anchors_per_cell, kernel, padding=kernel // 2)
        new.weight.copy_(old.weight[1::2] - old.weight[0::2])
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias[1::2] - old.bias[0::2])
        self.classes = new


class AnchorHead(nn.Module):
    """One ``LevelHead`` per level, as the light models have it; the arguments are its."""

    def __init__(
        self, width: int, levels: tuple[AnchorLevel, ...], prior: float | None = None
    ) -> None:
        super().__init__()
        self.width = width
        self.levels = nn.ModuleList(
            LevelHead(width, level.per_cell, prior=prior) for level in levels
        )

    def forward(self, pyramid: list[torch.Tensor]) -> list[LevelOutput]:
        """Map pyramid levels, finest first, to their outputs."""
        return [head(level) for head, level in zip(self.levels, pyramid, strict=True)]

    def training_outputs(self, pyramid: list[torch.Tensor]) -> list[LevelOutput]:
        """Return what ``forward`` returns: every output has a loss."""
        outputs: list[LevelOutput] = self(pyramid)
        return outputs


class SharedAnchorHead(nn.Module):
    """One ``LevelHead`` for all levels, as the paper has it (section 4.2)."""

    def __init__(self, width: int, levels: tuple[AnchorLevel, ...]) -> None:
        super().__init__()
        self.width = width
        [anchors_per_cell] = {level.per_cell for level in levels}
        self.shared = LevelHead(width, anchors_per_cell)

    def forward(self, pyramid: list[torch.Tensor]) -> list[LevelOutput]:
        """Map pyramid levels, finest first, to their outputs."""
        return [self.shared(level) for level in pyramid]

    def training_outputs(self, pyramid: list[torch.Tensor]) -> list[LevelOutput]:
        """Return what ``forward`` returns: every output has a loss."""
        outputs: list[LevelOutput] = self(pyramid)
        return outputs
