"""RetinaFace's multi-task loss (equation 1, retinaface.txt)."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.anchor import LevelOutput
from edgeface.training.matching import NEGATIVE
from edgeface.training.objectives.base import BatchTargets, Losses, Objective, mean_count


class RetinaFaceObjective(Objective):
    """Softmax loss with OHEM, smooth-L1 boxes and landmarks."""

    def forward(self, net: DetectorNet, images: torch.Tensor, targets: BatchTargets) -> Losses:
        """Losses of a net on a batch; see ``multitask_loss``."""
        return multitask_loss(
            net.training_outputs(images).head,
            targets,
            box_weight=self.recipe.box_weight,
            landmark_weight=self.recipe.landmark_weight,
            negatives_per_positive=self.recipe.negatives_per_positive,
        )


def multitask_loss(
    outputs: list[LevelOutput],
    targets: BatchTargets,
    *,
    box_weight: float,
    landmark_weight: float,
    negatives_per_positive: float,
) -> Losses:
    """Softmax loss with OHEM, smooth-L1 boxes and landmarks.

    The hardest negatives of the whole batch count, ``negatives_per_positive`` for each positive
    (section 4.2: 3:1), so that pictures without faces teach too. Coordinates are summed per
    anchor and averaged over the positives, landmarks over those that have them.

    Args:
        outputs: levels as the net returns them, finest first.
        targets: what the anchors learn.
        box_weight: the paper's lambda 1.
        landmark_weight: the paper's lambda 2.
        negatives_per_positive: the OHEM ratio.
    """
    logits = torch.cat([level.logits for level in outputs], 1).float().flatten(0, 1)
    deltas = torch.cat([level.deltas for level in outputs], 1).flatten(0, 1)
    landmarks = torch.cat([level.landmarks for level in outputs], 1).flatten(0, 1)
    divisor = mean_count(len(targets.positives), logits)

    margin = logits[:, 1] - logits[:, 0]
    hard = max(int(len(targets.positives) * negatives_per_positive), 1)
    negative_losses = functional.softplus(margin[targets.labels.flatten() == NEGATIVE])
    hard_losses = negative_losses.topk(min(hard, len(negative_losses))).values
    positive_losses = functional.softplus(-margin[targets.positives])
    class_loss = (positive_losses.sum() + hard_losses.sum()) / divisor

    box_loss = functional.smooth_l1_loss(
        deltas[targets.positives].float(), targets.deltas, reduction="sum"
    )
    labelled = ~targets.landmarks.isnan().any(1)
    landmark_loss = functional.smooth_l1_loss(
        landmarks[targets.positives][labelled].float(), targets.landmarks[labelled], reduction="sum"
    )
    box_loss = box_loss / divisor
    landmark_loss = landmark_loss / mean_count(labelled.sum(), logits)
    total = class_loss + box_weight * box_loss + landmark_weight * landmark_loss
    terms = {"classes": class_loss, "boxes": box_loss, "landmarks": landmark_loss}
    return Losses(total, {name: value.detach() for name, value in terms.items()})
