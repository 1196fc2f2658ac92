"""Selective two-step regression and classification (sections 3.1 and 3.2, refineface.txt).

RetinaNet's class and box subnets, shared over the levels. The class subnet serves both steps, for
their task is the same; the first step's boxes have a subnet of their own. The papers know no
landmarks: the third predictor on the box subnet is an addition of ours, so that these systems
keep the SDK's contract.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from edgeface.anchors import AnchorSpec
from edgeface.nets.context.receptive_field import ReceptiveFieldEnhancement
from edgeface.nets.heads.anchor import LevelOutput, per_anchor
from edgeface.nets.layers import FixedConvolution, convolution, init_xavier
from edgeface.nets.necks.two_step import TwoStepLevels

# The first step rejects an anchor that is background with a confidence above 0.99.
THETA = 0.99
REJECTED_LOGIT = math.log((1 - THETA) / THETA)
# Focal loss wants rare faces from the start; above 1 - THETA, so that nothing is rejected yet.
PRIOR_LOGIT = math.log(0.05 / 0.95)


class TwoStepOutput(NamedTuple):
    """Raw outputs of one level in training; N pictures, A anchors.

    Attributes:
        logits: (N, A, 1) face, by the second step.
        deltas: (N, A, 4) box deltas of the second step, relative to the anchor as the first step
            refined it, where it did.
        landmarks: (N, A, 10) offsets relative to the regular anchor.
        first_logits: (N, A, 1) face, by the first step; None at a level classified once.
        first_deltas: (N, A, 4) relative to the regular anchor; None at a level refined once.
    """

    logits: torch.Tensor
    deltas: torch.Tensor
    landmarks: torch.Tensor
    first_logits: torch.Tensor | None
    first_deltas: torch.Tensor | None


def subnet(width: int, *, rfe: bool, separable: bool) -> nn.Sequential:
    """RetinaNet's four 3x3 convolutions; with ``rfe`` the middle two give way to that module."""

    def block() -> nn.Sequential:
        return nn.Sequential(convolution(width, width, separable=separable), nn.ReLU(inplace=True))

    middle = [ReceptiveFieldEnhancement(width)] if rfe else [block(), block()]
    return nn.Sequential(block(), *middle, block())


def sizes_to_centres(anchors_per_cell: int) -> torch.Tensor:
    """0/1 matrix (4A, 4A) that moves each anchor's delta w to its x, delta h to its y, else 0."""
    anchor = torch.zeros(4, 4)
    anchor[0, 2] = anchor[1, 3] = 1
    return torch.kron(torch.eye(anchors_per_cell), anchor)


class TwoStepHead(nn.Module):
    """Both steps of every level for which the neck gives two.

    Deployed, both steps fold into one logit and one delta per anchor. An anchor that the first
    step rejects keeps the lower of its two logits: below any threshold of 0.01 or more, as a large
    negative constant would be, but the quantiser keeps its range, and backends that round the
    first step differently hardly differ. The delta of two regressions, relative to the regular
    anchor, is x: dx + ex * exp(v1 * dw), w: dw + ew, and so for y and h, where d and e are the
    steps' deltas and v1 the variance of sizes.

    Args:
        width: channels of the levels.
        anchors: geometry; every level has the same number of anchors per cell.
        refined_twice: whether any level is.
        rfe: enhance the receptive field within the subnets.
        separable: make the 3x3 convolutions depthwise-separable.
    """

    def __init__(
        self, width: int, anchors: AnchorSpec, *, refined_twice: bool, rfe: bool, separable: bool
    ) -> None:
        super().__init__()
        [per_cell] = {level.per_cell for level in anchors.levels}
        self.width = width
        self.anchors_per_cell = per_cell
        self.size_variance = anchors.variances[1]
        self.class_subnet = subnet(width, rfe=rfe, separable=separable)
        self.classes = convolution(width, per_cell, separable=separable)
        self.box_subnet = subnet(width, rfe=rfe, separable=separable)
        self.boxes = convolution(width, per_cell * 4, separable=separable)
        self.landmarks = convolution(width, per_cell * 10, separable=separable)
        if refined_twice:
            self.first_boxes = nn.Sequential(
                subnet(width, rfe=rfe, separable=separable),
                convolution(width, per_cell * 4, separable=separable),
            )
        init_xavier(self)
        nn.init.constant_(self.classes[-1].bias, PRIOR_LOGIT)  # type: ignore[arg-type]
        if refined_twice:
            self.sizes_to_centres = FixedConvolution(sizes_to_centres(per_cell))

    def forward(self, levels: TwoStepLevels) -> list[LevelOutput]:
        """Map both steps' levels to the folded outputs of each level, finest first."""
        outputs = []
        for logits, deltas, landmarks, first_logits, first_deltas in self._maps(levels):
            if first_logits is not None:
                least = torch.minimum(first_logits, logits)
                logits = torch.where(first_logits < REJECTED_LOGIT, least, logits)
            if first_deltas is not None:
                growth = torch.exp(self.sizes_to_centres(first_deltas) * self.size_variance)
                deltas = first_deltas + deltas * growth
            maps = (logits, deltas, landmarks)
            outputs.append(LevelOutput(*(per_anchor(m, self.anchors_per_cell) for m in maps)))
        return outputs

    def training_outputs(self, levels: TwoStepLevels) -> list[TwoStepOutput]:
        """Map both steps' levels to every output that has a loss, level by level."""

        def arranged(maps: torch.Tensor | None) -> torch.Tensor | None:
            return None if maps is None else per_anchor(maps, self.anchors_per_cell)

        return [
            TwoStepOutput(
                *(per_anchor(maps, self.anchors_per_cell) for maps in level[:3]),
                *(arranged(maps) for maps in level[3:]),
            )
            for level in self._maps(levels)
        ]

    def _maps(self, levels: TwoStepLevels) -> Iterator[TwoStepOutput]:
        """Each level's outputs as maps (N, A * values, H, W), A anchors per cell."""
        coarse = len(levels.levels) - len(levels.refined)
        for index, level in enumerate(levels.levels):
            boxes = self.box_subnet(level)
            first_logits = first_deltas = None
            if index < len(levels.classified):
                first_logits = self._classify(levels.classified[index])
            if index >= coarse:
                first_deltas = self.first_boxes(levels.refined[index - coarse])
            yield TwoStepOutput(
                self._classify(level),
                self.boxes(boxes),
                self.landmarks(boxes),
                first_logits,
                first_deltas,
            )

    def _classify(self, level: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.classes(self.class_subnet(level))
        return maps
