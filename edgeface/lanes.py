"""Lanes: how many pictures a detector looks at at the same time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock

import numpy as np
from numpy.typing import NDArray

STAGES = ("read", "preprocess", "infer", "postprocess")


@dataclass(eq=False)
class Lane:
    """What one picture at a time works with.

    Attributes:
        buffer: a network frame to write into again.
        batch: frames that went to the backend together, to write into again.
        profile: milliseconds of each stage since ``begin``.
        faults: frames with outputs that are not finite since ``begin``.
    """

    buffer: NDArray[np.uint8] | None = None
    batch: NDArray[np.uint8] | None = None
    profile: dict[str, float] = field(default_factory=dict)
    faults: Counter[type[Exception]] = field(default_factory=Counter)

    def begin(self) -> None:
        """Set profile and faults back."""
        self.profile = dict.fromkeys(STAGES, 0.0)
        self.faults = Counter()

    def spend(self, *times: float) -> None:
        """Add the seconds between one time and the next to preprocess, infer and postprocess."""
        for stage, start, end in zip(STAGES[1:], times[:-1], times[1:], strict=True):
            self.profile[stage] += (end - start) * 1e3


class Lanes:
    """A number of lanes, which threads get in the order in which they asked."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = [Lane() for _ in range(count)]
        self._waiting: deque[SimpleQueue[Lane]] = deque()
        self._lock, self._turn_of_all = Lock(), Lock()

    @contextmanager
    def take(self) -> Iterator[Lane]:
        """Wait for a lane, and hold it."""
        lane = self._enter()
        try:
            yield lane
        finally:
            self._leave(lane)

    @contextmanager
    def take_all(self) -> Iterator[list[Lane]]:
        """Wait until nobody holds a lane, and hold them all."""
        with self._turn_of_all, ExitStack() as stack:
            yield [stack.enter_context(self.take()) for _ in range(self._count)]

    def _enter(self) -> Lane:
        with self._lock:
            if self._free:
                return self._free.pop()
            turn: SimpleQueue[Lane] = SimpleQueue()
            self._waiting.append(turn)
        try:
            return turn.get()
        except BaseException:
            self._give_up(turn)
            raise

    def _leave(self, lane: Lane) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(lane)
            else:
                self._free.append(lane)

    def _give_up(self, turn: SimpleQueue[Lane]) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return
        self._leave(turn.get())
