"""How fast the server's detector is."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

WINDOW_SECONDS = 2.0
KEPT = 600
BINS = 24
# The last bin holds everything beyond this multiple of the 95th percentile.
OVERFLOW = 1.3


class Stats:
    """Latencies of the last detections; safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._frames = self._faces = 0

    def add(self, milliseconds: float, faces: int) -> None:
        """Count a detection."""
        with self._lock:
            self._recent.append((self._clock(), milliseconds))
            self._frames += 1
            self._faces = faces

    def snapshot(self) -> dict[str, Any]:
        """Return frames, faces of the last one, frames a second, and latencies in ms."""
        with self._lock:
            recent, frames, faces = list(self._recent), self._frames, self._faces
        now = self._clock()
        times = [at for at, _ in recent if now - at <= WINDOW_SECONDS]
        span = times[-1] - times[0] if times else 0.0
        fps = (len(times) - 1) / span if span else 0.0
        return {
            "frames": frames,
            "faces": faces,
            "fps": round(fps, 2),
            "latency_ms": _latencies(np.array([latency for _, latency in recent])),
        }


def _latencies(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any] | None:
    if not len(values):
        return None
    median, p95 = np.percentile(values, (50, 95)).tolist()
    end = max(1.0, OVERFLOW * p95)
    counts, edges = np.histogram(values.clip(max=end), BINS, (0.0, end))
    return {
        "median": round(median, 2),
        "p95": round(p95, 2),
        "histogram": {"edges": edges.round(2).tolist(), "counts": counts.tolist()},
    }
