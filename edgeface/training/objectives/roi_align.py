"""RoIAlign (Mask R-CNN, He et al. 2017, section 3) on torch itself."""

from __future__ import annotations

import torch
from torch.nn import functional

SAMPLES = 2


def roi_align(
    level: torch.Tensor, boxes: torch.Tensor, owners: torch.Tensor, stride: int, bins: int
) -> torch.Tensor:
    """Average of 2 x 2 bilinear samples in each bin of each box.

    Args:
        level: (N, C, H, W) features.
        boxes: float (R, 4) corners in pixels of the input.
        owners: int64 (R,) sample of each box.
        stride: pixels per cell of the level.
        bins: rows and columns of the result.

    Returns:
        float32 (R, C, bins, bins). Beyond the level's border its edge goes on.
    """
    samples, channels = level.shape[:2]
    order = owners.argsort(stable=True)
    counts = torch.bincount(owners, minlength=samples)
    starts = counts.cumsum(0) - counts
    slots = torch.empty_like(owners)
    slots[order] = torch.arange(len(owners), device=owners.device) - starts[owners[order]]
    most = int(counts.max()) if len(owners) else 0
    if not most:
        return level.new_zeros((0, channels, bins, bins), dtype=torch.float32)

    side = bins * SAMPLES
    steps = (torch.arange(side, device=boxes.device) + 0.5) / side
    x = boxes[:, 0:1] + steps * (boxes[:, 2:3] - boxes[:, 0:1])
    y = boxes[:, 1:2] + steps * (boxes[:, 3:4] - boxes[:, 1:2])
    columns, rows = (torch.as_tensor(level.shape[axis] * stride / 2) for axis in (3, 2))
    points = torch.stack(
        [
            (x / columns - 1)[:, None, :].expand(-1, side, -1),
            (y / rows - 1)[:, :, None].expand(-1, -1, side),
        ],
        -1,
    )
    grid = points.new_zeros((samples, most, side, side, 2))
    grid[owners, slots] = points
    sampled = functional.grid_sample(
        level.float(),
        grid.view(samples, most * side, side, 2),
        padding_mode="border",
        align_corners=False,
    )
    binned = functional.avg_pool2d(sampled, SAMPLES).view(samples, channels, most, bins, bins)
    return binned.transpose(1, 2)[owners, slots]
