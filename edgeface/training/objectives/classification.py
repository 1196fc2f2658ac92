"""Face or background: the two classification losses that a recipe may name."""

from __future__ import annotations

import torch
from torch.nn import functional

from edgeface.training.matching import IGNORED, NEGATIVE, POSITIVE
from edgeface.training.objectives.base import largest_of_all, total_count
from edgeface.training.objectives.focal import focal_loss
from edgeface.training.recipe import Recipe


def classification_losses(
    logits: torch.Tensor, labels: torch.Tensor, recipe: Recipe
) -> torch.Tensor:
    """Loss of every anchor by the recipe's ``classification``; 0 where the anchor does not count.

    Args:
        logits: (N, A): the face's logit.
        labels: int8 (N, A): POSITIVE, NEGATIVE or IGNORED.
        recipe: names the loss and its parameters.

    Returns:
        float32 (N, A).
    """
    if recipe.classification == "focal":
        alpha, gamma = recipe.focal_alpha, recipe.focal_gamma
        losses = focal_loss(logits, labels, alpha=alpha, gamma=gamma)
        return losses * (labels != IGNORED)
    return ohem_losses(logits, labels, recipe.negatives_per_positive)


def ohem_losses(
    logits: torch.Tensor, labels: torch.Tensor, negatives_per_positive: float
) -> torch.Tensor:
    """Softmax losses of the positives and of the hardest negatives of the whole batch.

    At least one negative counts, so that pictures without faces teach too. In a distributed run
    the batch is that of all processes.

    Args:
        logits: (N, A): the face's logit.
        labels: int8 (N, A): POSITIVE, NEGATIVE or IGNORED.
        negatives_per_positive: how many negatives count for each positive.

    Returns:
        float32 (N, A); 0 where an anchor does not count.
    """
    logits = logits.float()
    positive = labels == POSITIVE
    losses = functional.softplus(torch.where(positive, -logits, logits)).flatten()
    negatives = (labels == NEGATIVE).flatten().nonzero().squeeze(1)
    positives = total_count(positive.sum(), logits)
    hard = max(int(positives.item() * negatives_per_positive), 1)
    counted = positive.flatten().clone()
    counted[negatives[largest_of_all(losses[negatives].detach(), hard)]] = True
    return (losses * counted).view_as(logits)
