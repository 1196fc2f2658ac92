"""One run that compares: times in turns, stages, ratios, starts, memory, energy, precision."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import cv2

from edgeface.bench import energy
from edgeface.bench.accuracy import Precision, measured, stored
from edgeface.bench.candidates import Candidate, Opened, Peer, to_dict
from edgeface.bench.machine import Machine
from edgeface.bench.scenes import Image
from edgeface.bench.settings import Settings
from edgeface.bench.starting import Start, measure_start
from edgeface.bench.timing import Ratio, Times, Turn, check_rounds, interleave
from edgeface.evaluation.wider import WiderImage

STAGES = ("read", "preprocess", "infer", "postprocess")

Track = Callable[[Sequence[Any], str], Iterable[Any]]
Profile = dict[str, float]


@dataclass
class Comparison:
    """What was measured so far; whole rounds stay when it is interrupted.

    Attributes:
        candidates: in the order of the tables.
        picture: what was looked at, in words.
        settings: how.
        rounds: the turn of every candidate, by round.
        profiles: stages of every candidate, by round; empty for one that tells none.
        faces: how many each finds.
        starts: fresh processes.
        joules: energy per picture.
        precisions: average precision.
        notes: what a reader should know.
        interrupted: it was stopped before its end.
        machine: where it was measured, as it was before.
    """

    candidates: Sequence[Candidate]
    picture: str
    settings: Settings
    rounds: list[dict[str, Turn]] = field(default_factory=list)
    profiles: list[dict[str, Profile]] = field(default_factory=list)
    faces: dict[str, int] = field(default_factory=dict)
    starts: dict[str, Start] = field(default_factory=dict)
    joules: dict[str, float] = field(default_factory=dict)
    precisions: dict[str, Precision] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    machine: Machine = field(default_factory=Machine.read)

    def times(self, name: str) -> Times:
        """Percentiles of a candidate."""
        return Times.of([taken[name] for taken in self.rounds])

    @property
    def baselines(self) -> list[str]:
        """What others are compared with: the peers, or the first candidate."""
        peers = [one.name for one in self.candidates if isinstance(one, Peer)]
        return peers or [self.candidates[0].name]

    def ratio(self, name: str, baseline: str) -> Ratio:
        """Time of a candidate beside another's, paired by rounds."""
        return Ratio.paired(
            [taken[name] for taken in self.rounds], [taken[baseline] for taken in self.rounds]
        )

    def stages(self, name: str) -> Profile:
        """Median milliseconds of each stage; empty where it tells none."""
        told = [profile[name] for profile in self.profiles if profile.get(name)]
        return {stage: statistics.median(one[stage] for one in told) for stage in STAGES if told}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "machine": self.machine.to_dict(),
            "picture": self.picture,
            "settings": asdict(self.settings),
            "rounds": len(self.rounds),
            "interrupted": self.interrupted,
            "notes": self.notes,
            "candidates": [self._row(candidate) for candidate in self.candidates],
        }

    def _row(self, candidate: Candidate) -> dict[str, Any]:
        name = candidate.name
        start, precision = self.starts.get(name), self.precisions.get(name)
        return {
            **to_dict(candidate),
            "milliseconds": {
                **asdict(self.times(name)),
                "rounds": [round(taken[name].wall, 4) for taken in self.rounds],
            },
            "ratios": {other: asdict(self.ratio(name, other)) for other in self.baselines},
            "stages": self.stages(name),
            "faces": self.faces.get(name),
            "start": start and asdict(start),
            "joules": self.joules.get(name),
            "accuracy": precision and asdict(precision),
        }


def compare(
    candidates: Sequence[Candidate],
    image: Image,
    picture: str,
    settings: Settings,
    *,
    rounds: int,
    starts: bool = True,
    known: Mapping[str, Precision] | None = None,
    dataset: Sequence[WiderImage] = (),
    track: Track = lambda items, _: items,
) -> Comparison:
    """Measure candidates on one picture.

    An interruption after the first whole round keeps what was measured.

    Args:
        candidates: what to compare.
        image: BGR uint8 (H, W, 3).
        picture: what it shows, in words.
        settings: how to look at it.
        rounds: timed turns of each.
        starts: measure fresh processes and their memory as well.
        known: average precision by name that need not be measured.
        dataset: WIDER FACE's pictures to measure average precision on; empty: only what ``known``
            and the models' own reports say.
        track: shows progress over items with a description.

    Raises:
        InvalidOptionError: there is no round.
        EdgeFaceError: a candidate does not load, or fails.
    """
    check_rounds(rounds)
    result = Comparison(candidates, picture, settings)
    try:
        with opened(candidates, settings) as detectors:
            _time(result, detectors, image, rounds, track)
            for candidate in candidates if energy.readable() else ():
                cv2.setNumThreads(candidate.threads)
                joules = energy.joules_per_call(partial(detectors[candidate.name], image))
                result.joules |= {} if joules is None else {candidate.name: joules}
        for candidate in track(candidates, "starting") if starts else ():
            result.starts[candidate.name] = measure_start(candidate, image, settings)
        for candidate in candidates:
            size = settings.input_size
            precision = (known or {}).get(candidate.name)
            if precision is None and dataset:
                precision = measured(candidate, dataset, size, track)
            precision = precision or stored(candidate, size)
            result.precisions |= {candidate.name: precision} if precision else {}
    except KeyboardInterrupt:
        if not result.rounds:
            raise
        result.interrupted = True
    if not energy.readable():
        result.notes.append("Energy: not readable here (RAPL below /sys/class/powercap).")
    return result


@contextmanager
def opened(candidates: Iterable[Candidate], settings: Settings) -> Iterator[dict[str, Opened]]:
    """Load candidates, by name, and free them in the end."""
    with ExitStack() as stack:
        detectors = {}
        for candidate in candidates:
            detectors[candidate.name] = candidate.open(settings)
            stack.callback(detectors[candidate.name].close)
        yield detectors


def _time(
    result: Comparison,
    detectors: Mapping[str, Opened],
    image: Image,
    rounds: int,
    track: Track,
) -> None:
    threads = {candidate.name: candidate.threads for candidate in result.candidates}
    profiles: dict[str, Profile] = {}

    def look(name: str) -> None:
        result.faces[name] = len(detectors[name](image))
        profiles[name] = dict(detectors[name].profile)

    calls = {name: partial(look, name) for name in detectors}
    turns = interleave(calls, rounds, prepare=lambda name: cv2.setNumThreads(threads[name]))
    for _ in track(range(rounds), "timing"):
        result.rounds.append(next(turns))
        result.profiles.append(dict(profiles))
