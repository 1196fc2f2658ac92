"""Graphs of a fixed batch behind the protocol of runtimes that take any number of frames."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeface.runtimes.base import Outputs, Runtime, check_frames


class FixedBatch:
    """A runtime whose graph takes ``batch`` frames at once.

    More frames take turns; fewer are filled up with copies of the last one, whose results nobody
    sees: a single frame costs what a whole batch costs.
    """

    def __init__(self, runtime: Runtime, batch: int) -> None:
        self._runtime = runtime
        self._batch = batch

    def infer(self, frames: NDArray[np.uint8]) -> Outputs:
        """Run the graph; see ``edgeface.runtimes.base.Runtime``."""
        check_frames(frames)
        if len(frames) == self._batch:
            return self._runtime.infer(frames)
        parts = []
        for start in range(0, len(frames), self._batch):
            part = frames[start : start + self._batch]
            copies = np.repeat(part[-1:], self._batch - len(part), 0)
            outputs = self._runtime.infer(np.concatenate([part, copies]))
            parts.append({name: value[: len(part)].copy() for name, value in outputs.items()})
        return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}

    def describe(self) -> Mapping[str, str]:
        """Facts for ``explain()``."""
        return {**self._runtime.describe(), "batch": str(self._batch)}

    def close(self) -> None:
        """Free the model."""
        self._runtime.close()
