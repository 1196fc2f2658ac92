"""How far a figure would move with other pictures of the same kind: the bootstrap over pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeface.evaluation.average_precision import PictureCounts

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)


def resampled(
    runs: Sequence[PictureCounts], resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Average precision on resampled sets of pictures (Efron 1979), averaged over runs.

    The same seed draws the same pictures, so results for two nets on one set may be subtracted:
    what is hard about the pictures then cancels out.

    Args:
        runs: counts of one net, or of several trainings of it, on the same P pictures.
        resamples: how many sets of P pictures, drawn with replacement.
        seed: of the draws.

    Returns:
        (resamples,) average precision; NaN where a set has no face.
    """
    pictures = len(runs[0].faces)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(pictures, np.full(pictures, 1 / pictures), resamples)
    values: NDArray[np.float64] = np.mean([run.average_precision(draws) for run in runs], axis=0)
    return values


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of resampled values; NaN where there are none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, INTERVAL)
    return float(low), float(high)
