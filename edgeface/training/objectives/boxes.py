"""Geometry of boxes in torch, with gradients where losses need them."""

from __future__ import annotations

import torch

LARGEST_LOG_SIZE = 6.0
TINY = 1e-7


def decode_boxes(
    priors: torch.Tensor, deltas: torch.Tensor, variances: tuple[float, float]
) -> torch.Tensor:
    """Corner boxes (..., A, 4) of deltas (..., A, 4) to centre-size priors (A, 4)."""
    centres = priors[:, :2] + deltas[..., :2] * variances[0] * priors[:, 2:]
    logs = (deltas[..., 2:] * variances[1]).clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE)
    half = priors[:, 2:] * logs.exp() / 2
    return torch.cat([centres - half, centres + half], -1)


def _areas(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def _shared(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    top_left = torch.maximum(boxes[..., :2], others[..., :2])
    bottom_right = torch.minimum(boxes[..., 2:], others[..., 2:])
    return (bottom_right - top_left).clamp(min=0).prod(-1)


def iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Intersection over union of corner boxes that broadcast to (..., 4)."""
    shared = _shared(boxes, others)
    return shared / (_areas(boxes) + _areas(others) - shared).clamp(min=TINY)


def share_inside(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Share of each box's area that lies in the other; corner boxes that broadcast to (..., 4)."""
    return _shared(boxes, others) / _areas(boxes).clamp(min=TINY)


def distance_iou(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """IoU less the squared distance of the centres in diagonals of the common hull: (K,)."""
    hull = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    apart = (boxes[:, :2] + boxes[:, 2:] - others[:, :2] - others[:, 2:]) / 2
    return iou(boxes, others) - apart.square().sum(1) / hull.square().sum(1).clamp(min=TINY)
