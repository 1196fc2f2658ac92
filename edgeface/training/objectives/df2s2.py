"""DF2S2's loss (equation 2, df2s2.txt), and its segmentation branch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from edgeface.anchors import AnchorSpec
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.anchor import LevelOutput
from edgeface.nets.heads.tower import TowerHead, TowerOutputs
from edgeface.nets.layers import init_xavier
from edgeface.training.matching import POSITIVE
from edgeface.training.objectives.base import BatchTargets, Losses, Objective, mean_count
from edgeface.training.objectives.classification import classification_losses
from edgeface.training.objectives.retinaface import landmark_loss
from edgeface.training.objectives.segmentation import IGNORED_PIXEL, box_masks
from edgeface.training.recipe import Recipe


class SegmentationBranch(nn.Module):
    """A 3x3 convolution behind the tower that all levels and tasks share (section 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.masks = nn.Conv2d(width, 1, 3, padding=1)
        init_xavier(self)

    def forward(self, towers: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map each level's (N, width, H, W) to the face's logit in each cell, (N, H, W)."""
        return [self.masks(tower).squeeze(1) for tower in towers]


class DF2S2Objective(Objective):
    """Detection losses per level, landmarks, and the segmentation branch.

    The term ``segmentation`` is the paper's lambda 2, 0.05 by table 3. Landmarks, which it has
    not, are weighed by the recipe.
    """

    strengths: ClassVar[Mapping[str, float]] = {"segmentation": 0.05}

    def __init__(self, net: DetectorNet, recipe: Recipe) -> None:
        super().__init__(net, recipe)
        self.segmentation: SegmentationBranch | None = None
        if self.strength("segmentation"):
            assert isinstance(net.head, TowerHead)
            self.segmentation = SegmentationBranch(net.head.width)

    def forward(self, net: DetectorNet, images: torch.Tensor, targets: BatchTargets) -> Losses:
        """Losses of a net on a batch."""
        head: TowerOutputs = net.training_outputs(images).head
        losses = detection_loss(head.levels, targets, self.recipe)
        if self.segmentation is None:
            return losses
        masks = self.segmentation(head.towers)
        loss = segmentation_loss(masks, targets, net.anchors, self.recipe.matching.smallest)
        losses.terms["segmentation"] = loss.detach()
        return Losses(losses.total + self.strength("segmentation") * loss, losses.terms)


def detection_loss(outputs: list[LevelOutput], targets: BatchTargets, recipe: Recipe) -> Losses:
    """Classes and boxes averaged on each level and added up (equation 2), and landmarks.

    The paper divides a level's focal loss by the anchors that take part in it. With tens of
    thousands of easy ones that would leave next to nothing of it beside the boxes; we divide by
    the positives, as the paper's source of that loss does (RetinaNet, section 4.1).

    Args:
        outputs: levels as the net returns them, finest first; the face's logit alone.
        targets: what the anchors learn.
        recipe: the classification loss, and the weights of boxes (lambda 1) and landmarks.
    """
    sizes = [level.logits.shape[1] for level in outputs]
    logits = torch.cat([level.logits for level in outputs], 1).squeeze(2)
    deltas = torch.cat([level.deltas for level in outputs], 1).flatten(0, 1)
    landmarks = torch.cat([level.landmarks for level in outputs], 1).flatten(0, 1)

    faces = torch.split(targets.labels == POSITIVE, sizes, 1)
    counts = mean_count(torch.stack([level.sum() for level in faces]), logits)
    losses = classification_losses(logits, targets.labels, recipe)
    class_losses = torch.split(losses, sizes, 1)
    class_loss = (torch.stack([level.sum() for level in class_losses]) / counts).sum()

    box_losses = functional.smooth_l1_loss(
        deltas[targets.positives].float(), targets.deltas, reduction="none"
    ).sum(1)
    ends = torch.tensor(sizes, device=logits.device).cumsum(0)
    levels = torch.bucketize(targets.positives % logits.shape[1], ends, right=True)
    box_loss = (box_losses / counts[levels]).sum()

    point_loss = landmark_loss(landmarks[targets.positives], targets.landmarks)
    total = class_loss + recipe.box_weight * box_loss + recipe.landmark_weight * point_loss
    terms = {"classes": class_loss, "boxes": box_loss, "landmarks": point_loss}
    return Losses(total, {name: value.detach() for name, value in terms.items()})


def segmentation_loss(
    masks: list[torch.Tensor], targets: BatchTargets, anchors: AnchorSpec, smallest: float
) -> torch.Tensor:
    """Cross-entropy of the masks, averaged over each level's cells and added up (equation 2).

    Args:
        masks: the face's logit in each cell of each level, (N, H, W), finest first.
        targets: of the batch.
        anchors: of the net.
        smallest: see ``box_masks``.
    """
    wanted = box_masks(targets, anchors, [mask.shape for mask in masks], smallest)
    losses = []
    for mask, face in zip(masks, wanted, strict=True):
        learnt = face != IGNORED_PIXEL
        loss = functional.binary_cross_entropy_with_logits(
            mask.float(), (face == 1).float(), learnt.float(), reduction="sum"
        )
        losses.append(loss / mean_count(learnt.sum(), loss))
    return torch.stack(losses).sum()
