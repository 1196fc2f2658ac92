"""Knowledge distillation (Hinton et al. 2015): a net learns another's answers beside the labels.

Boxes are taught where the teacher sees faces, as in Chen et al. (NeurIPS 2017).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from edgeface.anchors import AnchorSpec, prior_boxes
from edgeface.nets.heads.anchor import LevelOutput
from edgeface.training.objectives.base import mean_count
from edgeface.training.objectives.boxes import decode_boxes, distance_iou

LEAST_SCORE = 0.1


def distillation_loss(
    outputs: list[LevelOutput],
    taught: list[LevelOutput],
    anchors: AnchorSpec,
    size: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Divergence of the scores from a teacher's, and Distance-IoU to its boxes.

    Both are weighted by the teacher's scores and divided by their sum.

    Args:
        outputs: levels of the net that learns, finest first; logits of background and face.
        taught: the teacher's, of the same pictures.
        anchors: geometry of both.
        size: height and width of the pictures in pixels.

    Returns:
        The Kullback-Leibler divergence of the scores, and the boxes' loss: two scalars.
    """
    margin, deltas = _flatten(outputs)
    taught_margin, taught_deltas = _flatten(taught)
    scores = taught_margin.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(taught_margin, scores, reduction="none")
    crossed = functional.binary_cross_entropy_with_logits(margin, scores, reduction="none")
    divisor = mean_count(scores.sum(), margin)

    priors = torch.from_numpy(prior_boxes(anchors, *size)).to(margin.device)
    sure = scores > LEAST_SCORE
    boxes = decode_boxes(priors, deltas, anchors.variances)[sure]
    wanted = decode_boxes(priors, taught_deltas, anchors.variances)[sure]
    apart = (1 - distance_iou(boxes, wanted)) * scores[sure]
    return (crossed - entropy).sum() / divisor, apart.sum() / divisor


def _flatten(levels: list[LevelOutput]) -> tuple[torch.Tensor, torch.Tensor]:
    """Margins of face over background (N, A), and deltas (N, A, 4), of all levels."""
    logits = torch.cat([level.logits for level in levels], 1).float()
    deltas = torch.cat([level.deltas for level in levels], 1).float()
    return logits[..., 1] - logits[..., 0], deltas
