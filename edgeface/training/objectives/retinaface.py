"""RetinaFace's multi-task loss (equation 1, retinaface.txt)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional

from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.anchor import AnchorHead, LevelOutput, SharedAnchorHead
from edgeface.training.dense.branch import DenseBranch, dense_losses
from edgeface.training.objectives.base import BatchTargets, Losses, Objective, mean_count
from edgeface.training.objectives.classification import classification_losses
from edgeface.training.recipe import Recipe


class RetinaFaceObjective(Objective):
    """Classes, smooth-L1 boxes and landmarks, and the dense regression branch.

    The term ``dense`` is the paper's lambda 3. Its pixel loss is averaged over a few of the
    positive anchors, enough to learn from and few enough for a CPU.
    """

    strengths: ClassVar[Mapping[str, float]] = {"dense": 0.01}

    def __init__(self, net: DetectorNet, recipe: Recipe) -> None:
        super().__init__(net, recipe)
        self.dense: DenseBranch | None = None
        if self.strength("dense"):
            assert isinstance(net.head, (AnchorHead, SharedAnchorHead))
            self.dense = DenseBranch(net.head.width, net.anchors.levels[0].per_cell)

    def forward(self, net: DetectorNet, images: torch.Tensor, targets: BatchTargets) -> Losses:
        """Losses of a net on a batch."""
        outputs = net.training_outputs(images)
        losses = multitask_loss(outputs.head, targets, self.recipe)
        if self.dense is None:
            return losses
        drawn = dense_losses(self.dense, net.anchors, outputs.features, images, targets.positives)
        pixels = drawn.sum() / mean_count(len(drawn), drawn)
        return Losses(
            losses.total + self.strength("dense") * pixels,
            {**losses.terms, "pixels": pixels.detach()},
        )


def multitask_loss(
    outputs: list[LevelOutput], targets: BatchTargets, recipe: Recipe, *, class_weight: float = 1.0
) -> Losses:
    """Classification loss of the recipe, by default OHEM 3:1, smooth-L1 boxes and landmarks.

    Classes and boxes are summed and averaged over the positives, landmarks over those that have
    them.

    Args:
        outputs: levels as the net returns them, finest first; logits of background and face.
        targets: what the anchors learn.
        recipe: the classification loss, and the weights of boxes and landmarks (the paper's
            lambda 1 and 2).
        class_weight: weight of the classification loss.
    """
    logits = torch.cat([level.logits for level in outputs], 1).float()
    deltas = torch.cat([level.deltas for level in outputs], 1).flatten(0, 1)
    landmarks = torch.cat([level.landmarks for level in outputs], 1).flatten(0, 1)
    divisor = mean_count(len(targets.positives), logits)

    margin = logits[..., 1] - logits[..., 0]
    class_loss = classification_losses(margin, targets.labels, recipe).sum() / divisor
    box_loss = functional.smooth_l1_loss(
        deltas[targets.positives].float(), targets.deltas, reduction="sum"
    )
    point_loss = landmark_loss(landmarks[targets.positives], targets.landmarks)
    box_loss = box_loss / divisor
    total = (
        class_weight * class_loss
        + recipe.box_weight * box_loss
        + recipe.landmark_weight * point_loss
    )
    terms = {"classes": class_loss, "boxes": box_loss, "landmarks": point_loss}
    return Losses(total, {name: value.detach() for name, value in terms.items()})


def landmark_loss(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Smooth L1 of landmark offsets (K, 10), summed, averaged over those that are labelled.

    Args:
        predicted: of the positive anchors.
        wanted: their targets; NaN where unlabelled.
    """
    labelled = ~wanted.isnan().any(1)
    loss = functional.smooth_l1_loss(predicted[labelled].float(), wanted[labelled], reduction="sum")
    return loss / mean_count(labelled.sum(), loss)
