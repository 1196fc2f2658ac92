"""RetinaFace's multi-task loss (equation 1, retinaface.txt), without the dense regression."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from edgeface.nets.heads.anchor import LevelOutput
from edgeface.training.matching import NEGATIVE


class BatchTargets(NamedTuple):
    """Targets of a batch of N samples with A anchors each.

    Attributes:
        labels: int8 (N, A): positive 1, negative 0, ignored -1.
        positives: int64 (K,): positive anchors in the flattened (N * A).
        deltas: float32 (K, 4).
        landmarks: float32 (K, 10); NaN where unlabelled.
    """

    labels: torch.Tensor
    positives: torch.Tensor
    deltas: torch.Tensor
    landmarks: torch.Tensor


class Losses(NamedTuple):
    """Scalar losses: the weighted total, and each term before its weight."""

    total: torch.Tensor
    classes: torch.Tensor
    boxes: torch.Tensor
    landmarks: torch.Tensor


def multitask_loss(
    outputs: list[LevelOutput],
    targets: BatchTargets,
    *,
    box_weight: float,
    landmark_weight: float,
    negatives_per_positive: float,
    divisor: torch.Tensor | None = None,
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
        divisor: number of positives to divide by; by default those of this batch.
    """
    logits = torch.cat([level.logits for level in outputs], 1).float().flatten(0, 1)
    deltas = torch.cat([level.deltas for level in outputs], 1).flatten(0, 1)
    landmarks = torch.cat([level.landmarks for level in outputs], 1).flatten(0, 1)
    if divisor is None:
        divisor = logits.new_tensor(float(len(targets.positives)))
    divisor = divisor.clamp(min=1)

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
    landmark_loss = landmark_loss / labelled.sum().clamp(min=1)
    total = class_loss + box_weight * box_loss + landmark_weight * landmark_loss
    return Losses(total, class_loss.detach(), box_loss.detach(), landmark_loss.detach())
