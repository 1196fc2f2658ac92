"""ISRN's objective: the sum of the STC and STR losses (section 3.4, isrn.txt)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from edgeface.anchors import AnchorSpec
from edgeface.nets.detector import DetectorNet
from edgeface.nets.necks.two_step import TwoStepLevels
from edgeface.training.objectives.base import BatchTargets
from edgeface.training.objectives.df2s2 import SegmentationBranch, segmentation_loss
from edgeface.training.objectives.two_step import Anchors, Outputs, TwoStepObjective
from edgeface.training.recipe import Recipe


class ISRNObjective(TwoStepObjective):
    """Both steps' losses, and, where it is switched on, a segmentation branch on P2.

    The paper dropped that branch (section 5: "the final results drop a bit"), so the strength
    ``segmentation`` is 0. Its branch also reweighed the level in deployment; ours, which it shares
    with DF2S2, only supervises: every face's box is a mask on the finest level.
    """

    strengths: ClassVar[Mapping[str, float]] = {"segmentation": 0.0}

    def __init__(self, net: DetectorNet, recipe: Recipe) -> None:
        """Prepare to train a net whose pyramid is as wide as its head says."""
        super().__init__(net, recipe)
        self.finest = AnchorSpec(net.anchors.levels[:1])
        if self.strength("segmentation"):
            self.segmentation = SegmentationBranch(int(net.head.width))  # type: ignore[arg-type]

    def own_terms(
        self,
        features: TwoStepLevels,
        _outputs: Outputs,
        _anchors: Anchors,
        _refined: torch.Tensor,
        targets: BatchTargets,
    ) -> dict[str, torch.Tensor]:
        """Loss of the segmentation branch."""
        if not self.strength("segmentation"):
            return {}
        masks = self.segmentation(features.levels[:1])
        smallest = self.recipe.matching.smallest
        return {"segmentation": segmentation_loss(masks, targets, self.finest, smallest)}
