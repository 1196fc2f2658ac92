"""Ranges of a tensor for 8-bit quantisation, read off a histogram that grows with its values.

Four methods: the whole range (min-max), all but the outermost values (percentile), the range whose
quantised distribution diverges least (entropy; Migacz, "8-bit inference with TensorRT", GTC 2017),
and the range of least squared error (MSE; Krishnamoorthi, arXiv 1806.08342 section 3.1 surveys
these).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]

BINS = 8192
SAMPLES = 1 << 16
LEVELS = 256
PERCENTILE = 99.999
CANDIDATES = 96
SMALLEST = 1e-6


@dataclass
class Histogram:
    """Counts of values in equal bins between -limit and limit, and the exact extremes.

    The limit doubles, and neighbouring bins merge, whenever a value lies beyond it: what was
    counted stays counted, whatever the order in which values come, and memory stays the same.
    """

    low: float
    high: float
    limit: float
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Histogram:
        """A histogram of no values."""
        return cls(np.inf, -np.inf, SMALLEST, np.zeros(BINS, np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the values of an array of any shape, of a large one about SAMPLES of them.

        Raises:
            ValueError: a value is not finite.
        """
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise ValueError(f"values from {low} to {high}")
        self.low, self.high = min(self.low, low), max(self.high, high)
        while max(-low, high) >= self.limit:
            middle = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(middle, BINS // 4)
            self.limit *= 2
        # An odd step meets every channel of a power of two.
        step = max(1, values.size // SAMPLES) | 1
        position = values.reshape(-1)[::step] * np.float32(BINS / 2 / self.limit) + np.float32(
            BINS / 2
        )
        index = np.minimum(position.astype(np.int64), BINS - 1)
        self.counts += np.bincount(index, minlength=BINS)

    @property
    def edges(self) -> NDArray[np.float64]:
        """Bounds of the bins, float64 (BINS + 1,)."""
        return np.linspace(-self.limit, self.limit, BINS + 1)


def minmax(histogram: Histogram) -> Range:
    """All values."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, percent: float = PERCENTILE) -> Range:
    """All but the outermost values: half of what lies outside the percentage on either side."""
    share = np.cumsum(histogram.counts) / max(1, histogram.counts.sum())
    tail = (1 - percent / 100) / 2
    low = histogram.edges[np.searchsorted(share, tail, side="right")]
    high = histogram.edges[np.searchsorted(share, 1 - tail, side="left") + 1]
    return max(histogram.low, float(low)), min(histogram.high, float(high))


def mse(histogram: Histogram) -> Range:
    """The range whose values, clipped and rounded to 256 levels, have the least squared error."""
    centres = (histogram.edges[:-1] + histogram.edges[1:]) / 2
    counts = histogram.counts.astype(np.float64)

    def cost(low: float, high: float) -> float:
        outside = np.maximum(low - centres, 0) + np.maximum(centres - high, 0)
        inside = counts[outside == 0].sum()
        rounding = ((high - low) / (LEVELS - 1)) ** 2 / 12
        return float((counts * outside**2).sum() + inside * rounding)

    return _search(histogram, cost)


def entropy(histogram: Histogram) -> Range:
    """The range whose distribution over 256 levels has the least Kullback-Leibler divergence."""
    edges = histogram.edges
    counts = histogram.counts.astype(np.float64)

    def cost(low: float, high: float) -> float:
        first = int(np.searchsorted(edges, low, side="right")) - 1
        last = max(int(np.searchsorted(edges, high, side="left")), first + 1)
        return _divergence(counts, first, last)

    return _search(histogram, cost)


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def _divergence(counts: NDArray[np.float64], first: int, last: int) -> float:
    """KL divergence of bins [first, last), outliers clipped into them, from their 256 levels."""
    inside = counts[first:last]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    level = np.arange(len(inside)) * min(LEVELS, len(inside)) // len(inside)
    filled = inside > 0
    total = np.bincount(level, inside)
    bins = np.maximum(np.bincount(level, filled), 1)
    spread = np.where(filled, (total / bins)[level], 0)
    expected, got = clipped / max(1, clipped.sum()), spread / max(1, spread.sum())
    shared = (expected > 0) & (got > 0)
    lost = expected[(expected > 0) & (got == 0)].sum()
    ratio = np.log(expected[shared] / got[shared])
    return float((expected[shared] * ratio).sum() + lost * np.log(1 / np.finfo(float).eps))


def _search(histogram: Histogram, cost: Callable[[float, float], float]) -> Range:
    """Shrink the high end, then the low end, to where the cost is least."""
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    shares = np.linspace(1 / CANDIDATES, 1, CANDIDATES)
    high = min((high * share for share in shares), key=lambda bound: cost(low, bound))
    low = min((low * share for share in shares), key=lambda bound: cost(bound, high))
    return low, high
