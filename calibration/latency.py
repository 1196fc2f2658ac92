"""Milliseconds per frame of several artifacts, taken in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)

WARM_UP = 3


def interleaved(calls: Mapping[Name, Callable[[], object]], rounds: int) -> dict[Name, float]:
    """Time calls one after another in every round, so that what else runs falls on all of them.

    Args:
        calls: what to time, by name.
        rounds: timed calls of each.

    Returns:
        Median milliseconds of each; their ratios hold on a busy machine, they themselves do not.
    """
    times: dict[Name, list[float]] = {name: [] for name in calls}
    for turn in range(-WARM_UP, rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn >= 0:
                times[name].append((time.perf_counter() - began) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}
