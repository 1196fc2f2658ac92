"""Matching where anchors move with the net's own outputs: the torch twin of ``matching``."""

from __future__ import annotations

from typing import NamedTuple

import torch

from edgeface.training.matching import IGNORED, NEGATIVE, POSITIVE, Matching


class Matched(NamedTuple):
    """What A anchors of one sample learn.

    Attributes:
        labels: int8 (A,): POSITIVE, NEGATIVE or IGNORED.
        faces: int64 (A,): the face of each positive anchor, as a row of ``boxes``.
    """

    labels: torch.Tensor
    faces: torch.Tensor


def decode(
    deltas: torch.Tensor, priors: torch.Tensor, variances: tuple[float, float]
) -> torch.Tensor:
    """Apply deltas (..., 4) to centre-size boxes (..., 4); the result is centre-size as well."""
    centres = priors[..., :2] + deltas[..., :2] * variances[0] * priors[..., 2:]
    return torch.cat([centres, priors[..., 2:] * torch.exp(deltas[..., 2:] * variances[1])], -1)


def encode(
    boxes: torch.Tensor, priors: torch.Tensor, variances: tuple[float, float]
) -> torch.Tensor:
    """Deltas (K, 4) that move centre-size priors (K, 4) to corner boxes (K, 4)."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    moved = (centres - priors[:, :2]) / (priors[:, 2:] * variances[0])
    return torch.cat([moved, torch.log(sizes / priors[:, 2:]) / variances[1]], 1)


def encode_points(
    points: torch.Tensor, priors: torch.Tensor, centre_variance: float
) -> torch.Tensor:
    """Offsets (K, 10) that decode to the points (K, 5, 2)."""
    offsets = (points - priors[:, None, :2]) / (priors[:, None, 2:] * centre_variance)
    return offsets.flatten(1)


def corners(priors: torch.Tensor) -> torch.Tensor:
    """Centre-size boxes (..., 4) as corners (..., 4)."""
    half = priors[..., 2:] / 2
    return torch.cat([priors[..., :2] - half, priors[..., :2] + half], -1)


def intersections(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Areas (N, M) that corner boxes (N, 4) and (M, 4) share."""
    x1, y1, x2, y2 = (column[:, None] for column in boxes.unbind(1))
    u1, v1, u2, v2 = others.unbind(1)
    width = torch.minimum(x2, u2) - torch.maximum(x1, u1)
    height = torch.minimum(y2, v2) - torch.maximum(y1, v1)
    return width.clamp_(min=0).mul_(height.clamp_(min=0))


def areas(boxes: torch.Tensor) -> torch.Tensor:
    """Areas (N,) of corner boxes (N, 4)."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


@torch.no_grad()
def match(
    anchors: torch.Tensor, boxes: torch.Tensor, ignored: torch.Tensor, rules: Matching
) -> Matched:
    """Assign the faces of one sample to its anchors, by the rules of ``matching.match``.

    Args:
        anchors: float (A, 4) corners.
        boxes: float (F, 4) corners of the faces.
        ignored: bool (F,) faces that are neither learnt nor punished.
        rules: the thresholds.
    """
    labels = anchors.new_full((len(anchors),), NEGATIVE, dtype=torch.int8)
    faces = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    if not len(boxes):
        return Matched(labels, faces)
    sizes = areas(anchors)
    shared = intersections(anchors, boxes)
    ignored = ignored | ((boxes[:, 2:] - boxes[:, :2]).amax(1) < rules.smallest)
    known = torch.nonzero(~ignored).flatten()
    if len(known):
        inside = shared[:, known]
        overlap = inside / (sizes[:, None] + areas(boxes[known]) - inside)
        best, owner = overlap.max(1)
        faces = known[owner]
        labels[best >= rules.negative] = IGNORED
        labels[best >= rules.positive] = POSITIVE
        reached, champion = overlap.max(0)
        order = reached.argsort()
        order = order[reached[order] >= rules.forced]
        labels[champion[order]] = POSITIVE
        ranks = torch.full_like(faces, -1)
        rising = torch.arange(len(order), device=order.device)
        ranks.scatter_reduce_(0, champion[order], rising, "amax")
        taken = ranks >= 0
        faces[taken] = known[order[ranks[taken]]]
        ignored[known[reached < rules.forced]] = True
    if ignored.any():
        share = shared[:, ignored].amax(1) / sizes
        labels[(labels == NEGATIVE) & (share >= rules.ignored_share)] = IGNORED
    return Matched(labels, faces)
