"""What ``edgeface tune`` measured on this machine, kept until the model or the machine changes."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeface import __version__, cache
from edgeface.bundle import Bundle
from edgeface.hardware import Host, cpu_signature, host, nvidia_driver
from edgeface.preprocess import InputSize

_KIND = "tune"
# Two trials this close are equally fast; the one with fewer threads leaves more to others.
_EQUAL = 1.03


@dataclass(frozen=True)
class Measurement:
    """A backend with an artifact, a number of threads and an input size, as tried on this machine.

    Attributes:
        backend: its name.
        version: of its library, where known; another one makes the measurement void.
        precision: of the artifact.
        exact: it computed in that precision, as where the caller names it; otherwise the backend
            might lower fp32, as with "auto".
        threads: worker threads.
        input_size: None, the long side, or (width, height) in pixels.
        ms: median of the milliseconds from picture to faces; None where it did not finish.
        ratio: how many times as long as the fastest of its input size it took, from paired rounds.
        problem: why it must not be chosen: it crashed, hung, or found other faces; "" where it may.
    """

    backend: str
    version: str | None
    precision: str
    exact: bool
    threads: int
    input_size: InputSize
    ms: float | None = None
    ratio: float | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """What was tried, without the backend: "fp32 exact, 2 threads"."""
        arithmetic = f"{self.precision} exact" if self.exact else self.precision
        return f"{arithmetic}, {self.threads} thread{'s' * (self.threads > 1)}"

    @property
    def works(self) -> bool:
        """Whether it may be chosen."""
        return self.ms is not None and self.ratio is not None and not self.problem

    def __str__(self) -> str:
        took = f"{self.ms:.1f} ms" if self.ms is not None else ""
        times = f"{self.ratio:.2f} x the fastest" if self.works and self.ratio != 1 else ""
        fastest = "the fastest" if self.works and self.ratio == 1 else ""
        return ", ".join(filter(None, (took, times, fastest, self.problem)))


def fastest(
    measured: Sequence[Measurement],
    precision: str,
    input_size: InputSize,
    threads: int | None,
) -> list[Measurement]:
    """Order what fits a caller's options, the fastest first and what must not be chosen last.

    Sizes and numbers of threads that were not measured are judged by the nearest that were.

    Args:
        measured: by ``edgeface tune``.
        precision: "auto" or a precision of the artifact.
        input_size: as ``Detector`` takes it.
        threads: worker threads, or None for any number.
    """
    fits = [
        one
        for one in measured
        if one.exact == (precision != "auto") and precision in ("auto", one.precision)
    ]
    if fits:
        size = min((one.input_size for one in fits), key=lambda other: _apart(other, input_size))
        fits = [one for one in fits if one.input_size == size]
    if fits and threads is not None:
        count = min((one.threads for one in fits), key=lambda other: abs(other - threads))
        fits = [one for one in fits if one.threads == count]
    working = sorted((one for one in fits if one.works), key=lambda one: one.ratio or 0)
    ordered = []
    while working:
        bound = (working[0].ratio or 0) * _EQUAL
        equal = [one for one in working if (one.ratio or 0) <= bound]
        ordered.append(min(equal, key=lambda one: one.threads))
        working.remove(ordered[-1])
    return ordered + [one for one in fits if not one.works]


def recall(bundle: Bundle) -> tuple[Measurement, ...]:
    """Return what was measured of a model on this machine; empty where it was not tuned."""
    try:
        rows = json.loads(cache.recall(_KIND, *_key(bundle)) or b"[]")
        return tuple(_parse(row) for row in rows)
    except (TypeError, ValueError, KeyError):
        return ()


def remember(bundle: Bundle, measured: Sequence[Measurement]) -> None:
    """Keep what was measured of a model on this machine; what is kept of other sizes stays."""
    sizes = {one.input_size for one in measured}
    others = [one for one in recall(bundle) if one.input_size not in sizes]
    rows = [asdict(one) for one in (*others, *measured)]
    cache.remember(_KIND, *_key(bundle), data=json.dumps(rows).encode())


def forget(bundle: Bundle) -> None:
    """Remove what was measured of a model on this machine."""
    cache.forget(_KIND, *_key(bundle))


def _key(bundle: Bundle) -> tuple[object, ...]:
    """What the measurements depend on, but for the backends' versions, which each names."""
    return (_model(bundle), sys.version, __version__, *_machine(host()))


def _model(bundle: Bundle) -> list[str]:
    return sorted(f"{one.format} {one.precision} {one.sha256}" for one in bundle.artifacts)


def _machine(this: Host) -> tuple[object, ...]:
    return (cpu_signature(), this.cores, this.core_types, nvidia_driver())


def _parse(row: Mapping[str, Any]) -> Measurement:
    size = row["input_size"]
    return Measurement(**{**row, "input_size": tuple(size) if isinstance(size, list) else size})


def _apart(one: InputSize, other: InputSize) -> float:
    """How unlike two input sizes are; the picture's own size is like no other."""
    if one == other:
        return -1
    longest = [max(size) if isinstance(size, tuple) else size for size in (one, other)]
    if longest[0] is None or longest[1] is None:
        return math.inf
    return abs(math.log(longest[0] / longest[1]))


def describe_size(input_size: InputSize) -> str:
    """Say an input size in words."""
    if input_size is None:
        return "the picture's own"
    if isinstance(input_size, tuple):
        return f"{input_size[0]}x{input_size[1]}"
    return f"long side {input_size}"
