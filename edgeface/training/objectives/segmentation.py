"""DF2S2's weak segmentation masks: the boxes of the faces that a level is for."""

from __future__ import annotations

import math

import torch

from edgeface.anchors import AnchorSpec
from edgeface.training.objectives.base import BatchTargets

IGNORED_PIXEL = -1


def level_of_faces(faces: torch.Tensor, anchors: AnchorSpec) -> torch.Tensor:
    """Level that sees each face in its receptive field (section 3.2, df2s2.txt).

    The paper follows S3FD's principle: a level is for faces about as large as its anchors, four
    times its stride. Each face goes to the level whose anchor is nearest in log scale, which is
    where a centred square of its size overlaps it by more than 0.5, the threshold of matching.
    Smaller and larger faces go to the finest and the coarsest level.

    Args:
        faces: float32 (F, 4) corner boxes in pixels.
        anchors: one size per level, each twice the one before.

    Returns:
        int64 (F,), 0 for the finest level.
    """
    sizes = (faces[:, 2:] - faces[:, :2]).clamp(min=1e-3).prod(1).sqrt()
    bounds = torch.tensor(
        [level.sizes[0] * math.sqrt(2) for level in anchors.levels[:-1]], device=faces.device
    )
    return torch.bucketize(sizes, bounds)


def box_masks(
    targets: BatchTargets, anchors: AnchorSpec, shapes: list[torch.Size], smallest: float
) -> list[torch.Tensor]:
    """Masks that the segmentation branch learns.

    A cell is face where its centre lies in the box of a face of its level; the cell of a face's
    own centre always is, however small the face. The faces of other levels are background. Cells
    in a face that is neither learnt nor punished are not learnt on any level.

    Args:
        targets: of the batch.
        anchors: strides and sizes of the levels.
        shapes: (N, ..., rows, columns) of each level's map, finest first.
        smallest: faces with a longer side under this many pixels are ignored.

    Returns:
        int8 (N, rows, columns) per level: 1 face, 0 background, -1 ignored.
    """
    sides = (targets.faces[:, 2:] - targets.faces[:, :2]).amax(1)
    ignored = targets.ignored | (sides < smallest)
    levels = level_of_faces(targets.faces, anchors)
    masks = []
    for number, (level, shape) in enumerate(zip(anchors.levels, shapes, strict=True)):
        own = ~ignored & (levels == number)
        faces = _cover(targets, own, level.stride, shape)
        mask = torch.where(_cover(targets, ignored, level.stride, shape), IGNORED_PIXEL, 0)
        masks.append(torch.where(faces, 1, mask).to(torch.int8))
    return masks


def _cover(
    targets: BatchTargets, chosen: torch.Tensor, stride: int, shape: torch.Size
) -> torch.Tensor:
    """Cells (N, rows, columns) that the boxes of the chosen faces cover."""
    boxes, owners = targets.faces[chosen], targets.owners[chosen]
    columns = _inside(boxes[:, 0], boxes[:, 2], shape[-1], stride)
    rows = _inside(boxes[:, 1], boxes[:, 3], shape[-2], stride)
    counts = torch.zeros(shape[0], *shape[-2:], device=boxes.device)
    counts.index_add_(0, owners, rows[:, :, None] * columns[:, None, :])
    return counts > 0


def _inside(start: torch.Tensor, end: torch.Tensor, cells: int, stride: int) -> torch.Tensor:
    """Which of a row's cells lie between two coordinates: float32 (F, cells) of 0 and 1."""
    centres = (torch.arange(cells, device=start.device) + 0.5) * stride
    inside = (centres >= start[:, None]) & (centres < end[:, None])
    own = ((start + end) / (2 * stride)).long().clamp(0, cells - 1)
    return inside.scatter(1, own[:, None], True).float()
