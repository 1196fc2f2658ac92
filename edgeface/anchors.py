"""Prior boxes: the anchors that box deltas and landmark offsets are relative to.

Shared by postprocessing and training, so that both see the same geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AnchorLevel:
    """Anchors of one pyramid level.

    Attributes:
        stride: pixels of the network input per cell.
        sizes: square root of each anchor's area, in pixels.
        aspect_ratios: height / width of the anchors; every size comes in every ratio.
    """

    stride: int
    sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...] = (1.0,)

    @property
    def per_cell(self) -> int:
        """Number of anchors at each cell."""
        return len(self.sizes) * len(self.aspect_ratios)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of this level's feature map for an input of height x width pixels."""
        return -(-height // self.stride), -(-width // self.stride)


@dataclass(frozen=True)
class AnchorSpec:
    """Anchor geometry of a model, finest level first.

    Attributes:
        levels: one entry per pyramid level.
        variances: (centre, size) scale of the deltas, as in SSD.
    """

    levels: tuple[AnchorLevel, ...]
    variances: tuple[float, float] = (0.1, 0.2)

    @property
    def max_stride(self) -> int:
        """Coarsest stride; network inputs are padded to a multiple of it."""
        return max(level.stride for level in self.levels)


@lru_cache(maxsize=64)
def level_priors(level: AnchorLevel, height: int, width: int) -> NDArray[np.float32]:
    """Prior boxes of one level for an input of height x width pixels.

    Returns:
        Read-only float32 array (rows * columns * per_cell, 4) of centre x, centre y, width and
        height in input pixels; row-major over cells, sizes before aspect ratios within a cell.
    """
    rows, columns = level.grid(height, width)
    shapes = [
        (size / ratio**0.5, size * ratio**0.5)
        for size in level.sizes
        for ratio in level.aspect_ratios
    ]
    priors = np.empty((rows, columns, level.per_cell, 4), np.float32)
    priors[..., 0] = ((np.arange(columns) + 0.5) * level.stride)[None, :, None]
    priors[..., 1] = ((np.arange(rows) + 0.5) * level.stride)[:, None, None]
    priors[..., 2:] = np.asarray(shapes, np.float32)
    flat = priors.reshape(-1, 4)
    flat.setflags(write=False)
    return flat


def prior_boxes(spec: AnchorSpec, height: int, width: int) -> NDArray[np.float32]:
    """All levels' prior boxes, finest first: float32 (N, 4) centre-size in input pixels."""
    return np.concatenate([level_priors(level, height, width) for level in spec.levels])
