"""Milliseconds per frame of several artifacts, taken in turns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from edgeface.bench.timing import Times, interleave

Name = TypeVar("Name", bound=Hashable)


def interleaved(calls: Mapping[Name, Callable[[], object]], rounds: int) -> dict[Name, float]:
    """Time calls that take turns, so that what else runs falls on all of them.

    Args:
        calls: what to time, by name.
        rounds: timed calls of each.

    Returns:
        Median milliseconds of each; their ratios hold on a busy machine, they themselves do not.
    """
    turns = list(interleave(calls, rounds))
    return {name: Times.of([taken[name] for taken in turns]).p50 for name in calls}
