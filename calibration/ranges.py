"""Histograms of a graph's activations over the calibration frames, one frame in memory at a time.

They are kept in edgeface's cache under the graph's and the frames' hashes, part of the way too: a
run that was stopped goes on where it was, and another method costs no second pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeface import cache
from edgeface.calibration.histogram import Histogram
from edgeface.errors import CalibrationError

Frame: TypeAlias = NDArray[np.uint8]
Activations: TypeAlias = Mapping[str, NDArray[np.float32]]
Progress: TypeAlias = Callable[[Iterable[Any], str], Iterable[Any]]

KIND = "ranges"
SAVE_EVERY = 50


def collect(
    source: bytes,
    run: Callable[[Frame], Activations],
    frames: Sequence[Frame],
    digest: str,
    progress: Progress,
) -> dict[str, Histogram]:
    """Count the activations of every frame.

    Args:
        source: the graph, for the cache's key.
        run: gives the activations of one uint8 (1, H, W, 3) frame, by tensor name.
        frames: the calibration frames.
        digest: what identifies the frames; "" keeps nothing.
        progress: shows how far it is, like ``edgeface.cli.progress.track``.

    Raises:
        CalibrationError: an activation is not finite.
    """
    key = (hashlib.sha256(source).hexdigest(), digest)
    done, histograms = _recall(key) if digest else (0, {})
    positions = range(done, len(frames))
    for position in progress(positions, "calibrating") if positions else ():
        for name, values in run(frames[position]).items():
            try:
                histograms.setdefault(name, Histogram.empty()).add(values)
            except ValueError as error:
                raise CalibrationError(
                    f"expected finite activations, got {error} in '{name}' for calibration picture "
                    f"{position}; train further, or leave that picture out"
                ) from error
        done = position + 1
        if digest and (done % SAVE_EVERY == 0 or done == len(frames)):
            cache.remember(KIND, *key, data=_pack(done, histograms))
    return histograms


def _pack(done: int, histograms: Mapping[str, Histogram]) -> bytes:
    buffer = BytesIO()
    np.savez_compressed(
        buffer,
        done=np.array(done),
        names=np.array(list(histograms)),
        bounds=np.array([(one.low, one.high, one.limit) for one in histograms.values()]),
        counts=np.array([one.counts for one in histograms.values()]),
    )
    return buffer.getvalue()


def _recall(key: tuple[str, str]) -> tuple[int, dict[str, Histogram]]:
    kept = cache.recall(KIND, *key)
    if kept is None:
        return 0, {}
    with np.load(BytesIO(kept), allow_pickle=False) as stored:
        rows = zip(stored["names"], stored["bounds"], stored["counts"], strict=True)
        histograms = {
            str(name): Histogram(float(low), float(high), float(limit), counts)
            for name, (low, high, limit), counts in rows
        }
        return int(stored["done"]), histograms
