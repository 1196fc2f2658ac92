"""RefineFace's objective: L = L_STR + L_STC + L_FSM (section 3.6, refineface.txt)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from edgeface.nets.detector import DetectorNet
from edgeface.nets.necks.two_step import TwoStepLevels
from edgeface.training.matching import POSITIVE
from edgeface.training.objectives.base import BatchTargets, mean_count
from edgeface.training.objectives.classification import classification_losses
from edgeface.training.objectives.feature_supervision import (
    FeatureSupervision,
    align,
    label,
    propose,
)
from edgeface.training.objectives.second_matching import corners, decode
from edgeface.training.objectives.two_step import Anchors, Outputs, TwoStepObjective
from edgeface.training.recipe import Recipe


class RefineFaceObjective(TwoStepObjective):
    """Both steps' losses, with the scale-aware margin and the feature supervision module.

    The strength ``sml`` is the margin's alpha, ``fsm`` the weight of the module's loss; 0 leaves
    either out. With a net of ``stc=off,str=off,rfe=off`` and both at 0 it is the paper's baseline,
    RetinaNet.
    """

    strengths: ClassVar[Mapping[str, float]] = {"sml": 15.0, "fsm": 1.0}

    def __init__(self, net: DetectorNet, recipe: Recipe) -> None:
        """Prepare to train a net whose pyramid is as wide as its head says."""
        super().__init__(net, recipe)
        self.margin = self.strength("sml")
        self.spec = net.anchors
        if self.strength("fsm"):
            self.supervision = FeatureSupervision(int(net.head.width))  # type: ignore[arg-type]

    def own_terms(
        self,
        features: TwoStepLevels,
        outputs: Outputs,
        anchors: Anchors,
        refined: torch.Tensor,
        targets: BatchTargets,
    ) -> dict[str, torch.Tensor]:
        """Loss of the feature supervision module."""
        if not self.strength("fsm"):
            return {}
        found = decode(outputs.deltas.detach(), refined, self.spec.variances)
        boxes, owners, levels = propose(
            outputs.logits.detach(), corners(found), anchors.levels, targets, self.spec
        )
        labels = label(boxes, owners, targets, self.recipe.second_matching)
        logits = self.supervision(align(features.levels, self.spec, boxes, owners, levels))
        losses = classification_losses(logits[None], labels[None], self.recipe)
        return {"fsm": losses.sum() / mean_count((labels == POSITIVE).sum(), losses)}
