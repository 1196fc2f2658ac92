"""The curves of growth to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from edgeface.bench.comparison import STAGES
from edgeface.bench.growth import (
    BATCH,
    CROWDED,
    FACES,
    FLAT,
    REFERENCE,
    SHRUNK,
    THREADS,
    VGA,
    WHOLE,
    Growth,
    Point,
)
from edgeface.bench.markdown import number, table


def to_markdown(result: Growth, picture: str, *, plot: str = "") -> str:
    """Return the tables.

    Args:
        result: what was measured.
        picture: what was looked at, in words.
        plot: name of the plot's file, to show it.
    """
    parts = [f"{result.machine}  \n{picture}; medians of {result.rounds} interleaved rounds."]
    if result.interrupted:
        parts.append("**Interrupted: the curves that are missing were not measured.**")
    written = {
        WHOLE: _whole,
        SHRUNK: _shrunk,
        FACES: _faces,
        THREADS: _threads,
        BATCH: _batch,
    }
    parts += [
        write(result.curves[name]) for name, write in written.items() if name in result.curves
    ]
    parts += [f"![Cost by size and by faces]({plot})"] if plot else []
    return "\n\n".join(parts) + "\n"


def departure(points: Sequence[Point], cost: Callable[[Point], float]) -> tuple[float, str]:
    """Largest departure of a cost per megapixel from that at 640 x 480, as a share, and where."""
    name = f"{REFERENCE[0]} x {REFERENCE[1]}"
    [reference] = [cost(one) / one.megapixels for one in points if one.step == name]
    return max((abs(cost(one) / one.megapixels / reference - 1), one.step) for one in points)


def _whole(points: Sequence[Point]) -> str:
    header = ["detector, backend", "picture", "ms", "CPU ms", "ms per megapixel", *STAGES, "faces"]
    rows = [
        [
            *(one.candidate, one.step, number(one.milliseconds, 2), number(one.cpu, 2)),
            *(number(one.per_megapixel), *_stages(one), str(one.faces)),
        ]
        for one in points
    ]
    verdicts = []
    for name, curve in groupby(points, lambda one: one.candidate):
        each = list(curve)
        worst, where = departure(each, lambda one: one.milliseconds)
        of_cpu, there = departure(each, lambda one: one.cpu)
        said = "flat" if worst <= FLAT else "NOT flat"
        verdicts.append(
            f"{name}: {said} within {FLAT:.0%} of {REFERENCE[0]} x {REFERENCE[1]}; the largest "
            f"departure is {worst:.0%} at {where}, of CPU ms {of_cpu:.0%} at {there}."
        )
    told = "The picture's size (`input_size=None`, the net sees every pixel):"
    return f"{told}\n\n{table(header, rows)}\n\n" + "  \n".join(verdicts)


def _shrunk(points: Sequence[Point]) -> str:
    header = ["detector, backend", "picture", "ms", *STAGES, "faces"]
    rows = [
        [one.candidate, one.step, number(one.milliseconds, 2), *_stages(one), str(one.faces)]
        for one in points
    ]
    told = "The picture's size, shrunk to a long side of 640 (what resizing costs: preprocess):"
    return f"{told}\n\n{table(header, rows)}"


def _faces(points: Sequence[Point]) -> str:
    header = ["detector, backend", "faces", "found", "ms", *STAGES]
    rows = [
        [one.candidate, one.step, str(one.faces), number(one.milliseconds, 2), *_stages(one)]
        for one in points
    ]
    told = f"Faces in a picture of {CROWDED[0]} x {CROWDED[1]}, `input_size=None`:"
    return f"{told}\n\n{table(header, rows)}"


def _threads(points: Sequence[Point]) -> str:
    return _speedup(points, "threads", f"Threads, {VGA[0]} x {VGA[1]}:")


def _batch(points: Sequence[Point]) -> str:
    told = f"Pictures in one call (`detector(list)`), {VGA[0]} x {VGA[1]}, per picture:"
    return _speedup(points, "batch", told)


def _speedup(points: Sequence[Point], step: str, told: str) -> str:
    rows = []
    for name, curve in groupby(points, lambda one: one.candidate):
        first, *rest = curve
        for one in (first, *rest):
            speed = f"{first.milliseconds / one.milliseconds:.2f}"
            rows.append([name, one.step, number(one.milliseconds, 2), number(one.cpu, 2), speed])
    header = ["detector, backend", step, "ms", "CPU ms", "times as fast as 1"]
    return f"{told}\n\n{table(header, rows)}"


def _stages(point: Point) -> list[str]:
    return [number(point.stages[stage], 2) for stage in STAGES]
