"""The focal loss (RetinaNet, Lin et al. 2017, equation 5)."""

from __future__ import annotations

import torch
from torch.nn import functional


def focal_loss(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float, gamma: float
) -> torch.Tensor:
    """Focal loss of every element, of the sigmoid of logits.

    Args:
        logits: float, any shape: the face's logit.
        labels: same shape, any dtype: above 0 for a face, else background.
        alpha: weight of faces; background has 1 - alpha.
        gamma: exponent by which easy examples lose weight.

    Returns:
        float32 of the same shape.
    """
    logits, faces = logits.float(), labels > 0
    margin = torch.where(faces, logits, -logits)
    weight = torch.where(faces, alpha, 1 - alpha)
    return weight * torch.sigmoid(-margin) ** gamma * functional.softplus(-margin)
