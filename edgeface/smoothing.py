"""The one-euro filter (Casiez, Roussel and Vogel 2012): still points rest, fast ones do not lag."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SPEED_CUTOFF = 1.0


def one_euro(
    values: Floats,
    previous: Floats,
    speeds: Floats,
    seconds: NDArray[Any],
    *,
    min_cutoff: float,
    beta: float | Floats,
) -> tuple[Floats, Floats]:
    """Smooth one step of signals of any shape.

    Args:
        values: what was measured.
        previous: what the filter returned for the step before; at the start, ``values``.
        speeds: units per second, as the filter returned them; at the start, 0.
        seconds: time since the step before, in a shape that broadcasts; 0 changes nothing.
        min_cutoff: cutoff in Hz of a signal at rest: lower is calmer.
        beta: Hz by which the cutoff rises per unit of speed, in a shape that broadcasts: higher
            lags less.

    Returns:
        The smoothed values and the new speeds.
    """
    elapsed = np.maximum(seconds, 1e-9)
    measured = (values - previous) / elapsed
    speeds = speeds + _weight(SPEED_CUTOFF, elapsed) * (measured - speeds)
    cutoff = min_cutoff + beta * np.abs(speeds)
    return previous + _weight(cutoff, elapsed) * (values - previous), speeds


def _weight(cutoff: float | Floats, seconds: NDArray[Any]) -> Floats:
    """Weight of the new value in exponential smoothing with that cutoff in Hz."""
    step = 2 * np.pi * cutoff * seconds
    weight: Floats = step / (step + 1)
    return weight
