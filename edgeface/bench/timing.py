"""Times of calls that take turns, and what they say on a machine that does other work as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from edgeface.errors import InvalidOptionError

Name = TypeVar("Name", bound=Hashable)

WARM_UP = 5
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)


class Turn(NamedTuple):
    """One timed call, in milliseconds.

    Attributes:
        wall: by the clock on the wall.
        cpu: of all the process's threads; what other processes do disturbs it less.
    """

    wall: float
    cpu: float


@dataclass(frozen=True)
class Times:
    """How long a call takes, in milliseconds.

    Attributes:
        p50: median.
        p90: 90th percentile.
        p99: 99th percentile.
        cpu: median time of the CPU, of all threads.
    """

    p50: float
    p90: float
    p99: float
    cpu: float

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> Times:
        """Summarise a call's turns."""
        p50, p90, p99 = np.percentile([turn.wall for turn in turns], (50, 90, 99))
        cpu = np.median([turn.cpu for turn in turns])
        return cls(float(p50), float(p90), float(p99), float(cpu))


@dataclass(frozen=True)
class Ratio:
    """How long a call takes beside another in the same rounds.

    Attributes:
        median: of the rounds' ratios.
        low: lower end of its 95 % interval, by the bootstrap over rounds.
        high: upper end.
        cpu: median of the ratios of CPU time; 0 where the other took none that could be told.
    """

    median: float
    low: float
    high: float
    cpu: float

    @classmethod
    def paired(cls, turns: Sequence[Turn], others: Sequence[Turn]) -> Ratio:
        """Compare turns of the same rounds: what else the machine did falls on both."""
        pairs = list(zip(turns, others, strict=True))
        ratios = np.array([turn.wall / other.wall for turn, other in pairs])
        cpu = np.median([turn.cpu / other.cpu if other.cpu else 0 for turn, other in pairs])
        draws = np.random.default_rng(0).integers(len(ratios), size=(RESAMPLES, len(ratios)))
        low, high = np.percentile(np.median(ratios[draws], axis=1), INTERVAL)
        return cls(float(np.median(ratios)), float(low), float(high), float(cpu))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f}), CPU {self.cpu:.2f}"


def interleave(
    calls: Mapping[Name, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = WARM_UP,
    prepare: Callable[[Name], object] = lambda _: None,
) -> Iterator[dict[Name, Turn]]:
    """Time calls that take turns, so that whatever else the machine does falls on all of them.

    Each turn calls twice and times the second call, whose caches are as warm as those of a stream's
    frames. Each round begins with another call.

    Args:
        calls: what to time, by name.
        rounds: timed turns of each.
        warm_up: turns of each before them that are not timed.
        prepare: what comes before a call, and is not timed.

    Yields:
        The turn of each call, for every whole round.

    Raises:
        InvalidOptionError: there is no round.
    """
    check_rounds(rounds)
    names = list(calls)
    for turn in range(-warm_up, rounds):
        first = turn % len(names)
        taken: dict[Name, Turn] = {}
        for name in names[first:] + names[:first]:
            call = calls[name]
            prepare(name)
            call()
            began, burnt = time.perf_counter(), time.process_time()
            call()
            wall, cpu = time.perf_counter() - began, time.process_time() - burnt
            taken[name] = Turn(wall * 1e3, cpu * 1e3)
        if turn >= 0:
            yield taken


def check_rounds(rounds: int) -> None:
    """Raise InvalidOptionError where there is no round."""
    if rounds < 1:
        raise InvalidOptionError(f"expected at least 1 round, got {rounds}; 100 tell p99")
