"""RetinaFace's headline on its own terms: table 5 of the paper, and the same sizes here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from edgeface.bench.candidates import Ours
from edgeface.bench.growth import Point, Step, measure
from edgeface.bench.machine import Machine
from edgeface.bench.markdown import table
from edgeface.bench.scenes import Image, Size, fit
from edgeface.bench.settings import Settings
from edgeface.hardware import host

VGA: Size = (640, 480)
HD: Size = (1920, 1080)
# Deng et al. 2020, table 5: RetinaFace-MobileNet-0.25, "CPU-1" and "CPU-m".
PAPER = {("VGA", 1): 17.2, ("HD", 1): 130.4, ("VGA", 2): 5.5, ("HD", 2): 50.3}
PAPER_ROW = "RetinaFace-MobileNet-0.25 in the paper: TVM, Intel i7-6700K (4 cores)"


@dataclass(frozen=True)
class Headline:
    """The paper's table with rows of this machine.

    Attributes:
        threads: of the columns of several threads.
        points: by candidate, in the order VGA and HD, one thread and several.
        rounds: timed turns of each.
        machine: where it was measured, as it was before.
    """

    threads: int
    points: tuple[tuple[Point, ...], ...]
    rounds: int
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "machine": self.machine.to_dict(),
            "paper": {f"{size}, {number}": ms for (size, number), ms in PAPER.items()},
            "threads": self.threads,
            "rounds": self.rounds,
            "points": [asdict(point) for points in self.points for point in points],
        }

    def to_markdown(self, picture: str) -> str:
        """Return the table: the network alone, and the whole call in brackets."""
        many = f"{self.threads} threads"
        header = ["", "VGA, 1 thread", "HD, 1 thread", f"VGA, {many}", f"HD, {many}"]
        paper = [f"{ms:.1f}" for ms in PAPER.values()]
        rows = [
            [points[0].candidate, *(_cell(point) for point in points)] for points in self.points
        ]
        note = (
            f"{self.machine}  \n{picture}, VGA 640 x 480, HD 1920 x 1080, every pixel seen; "
            f"medians of {self.rounds} interleaved rounds; ms of the network alone, in brackets of "
            "the whole call. The paper's last two columns are its multi-thread test."
        )
        return f"{note}\n\n{table(header, [[PAPER_ROW, *paper], *rows])}\n"


def headline(
    candidates: Sequence[Ours],
    image: Image,
    *,
    rounds: int,
    track: Callable[[str, Sequence[Any]], Iterable[Any]] = lambda _, items: items,
) -> Headline:
    """Measure the paper's sizes on this machine, on one thread and on the default number.

    Args:
        candidates: what to measure, one after another.
        image: BGR uint8 (H, W, 3).
        rounds: timed turns of each point.
        track: shows progress over items, after a description.

    Raises:
        EdgeFaceError: a candidate does not load, or fails.
    """
    machine, many = Machine.read(), host().threads
    points = []
    for candidate in candidates:
        steps = [
            Step(name, replace(candidate, threads=number), Settings(None), fit(image, size))
            for number in (1, many)
            for name, size in (("VGA", VGA), ("HD", HD))
        ]
        points.append(tuple(measure(steps, rounds, partial(track, candidate.name))))
    return Headline(many, tuple(points), rounds, machine)


def _cell(point: Point) -> str:
    return f"{point.stages['infer']:.1f} ({point.milliseconds:.1f})"
