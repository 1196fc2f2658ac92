"""Focal loss (Lin et al. 2017), which RefineFace, ISRN and DF2S2 share."""

from __future__ import annotations

import torch
from torch.nn import functional


def focal_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """Sigmoid focal loss of each element: -alpha_t (1 - p_t)^gamma log p_t.

    Args:
        logits: any shape; computed in float32.
        labels: the same shape, 1 for a face and 0 for background; any dtype.
        alpha: weight of the faces; the background's is 1 - alpha.
        gamma: how much easy elements fade.

    Returns:
        float32, the same shape.
    """
    logits, faces = logits.float(), labels > 0
    wrong = torch.where(faces, -logits, logits)
    weight = torch.where(faces, alpha, 1 - alpha)
    return weight * torch.sigmoid(wrong) ** gamma * functional.softplus(wrong)
