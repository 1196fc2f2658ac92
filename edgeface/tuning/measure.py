"""Measure every backend, precision and number of threads here, and keep it for "auto"."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgeface import tuned
from edgeface.bundle import load_bundle
from edgeface.errors import BackendUnavailableError, InvalidOptionError
from edgeface.hardware import host
from edgeface.imageio import Picture, read_image
from edgeface.preprocess import InputSize, check_input_size
from edgeface.runtimes.base import backends
from edgeface.runtimes.child import can_start
from edgeface.runtimes.probe import Verdict, probe
from edgeface.tuned import Measurement, describe_size
from edgeface.tuning.drawing import drawn_faces
from edgeface.tuning.reference import compare, same_arithmetic
from edgeface.tuning.trial import Trial, plan, usual_threads
from edgeface.tuning.workers import Workers, ratios

DRAWN = "eight drawn faces"
Progress = Callable[[Sequence[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Tuning:
    """What was measured; ``str()`` makes a table of it.

    Attributes:
        model: name of the bundle.
        pictures: what was looked at, in words.
        reference: whose faces the others were compared with.
        unavailable: backends that could not be tried, and why.
        measured: the trials, per input size the fastest first.
    """

    model: str
    pictures: str
    reference: str
    unavailable: Mapping[str, str]
    measured: tuple[Measurement, ...]

    def best(self, input_size: InputSize = 640) -> Measurement | None:
        """What "auto" takes from now on at an input size; None where nothing may be chosen."""
        ordered = tuned.fastest(self.measured, "auto", input_size, None)
        return ordered[0] if ordered and ordered[0].works else None

    def __str__(self) -> str:
        rows = [
            (
                one.backend,
                one.name,
                describe_size(one.input_size),
                "-" if one.ms is None else f"{one.ms:.1f}",
                f"{one.ratio:.2f}" if one.works else "-",
                one.problem,
            )
            for one in self.measured
            if not one.exact or replace(one, exact=False) not in self.measured
        ]
        rows.insert(0, ("backend", "precision, threads", "input size", "ms", "ratio", ""))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{self.model} on {self.pictures}, compared with {self.reference}", ""]
        for row in rows:
            cells = [
                cell.rjust(width) if number in (3, 4) else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        lines += [f"{name} was not tried: {reason}" for name, reason in self.unavailable.items()]
        return "\n".join(lines)


def tune(
    model: str | Path = "retinaface_mobilenet025",
    *,
    images: Sequence[Picture] | None = None,
    input_sizes: Sequence[InputSize] = (640,),
    threads: Sequence[int] | None = None,
    rounds: int = 20,
    progress: Progress = lambda steps, _: steps,
) -> Tuning:
    """Measure which backend, precision and number of threads are the fastest on this machine.

    Every backend that runs here computes in a process of its own; they take turns in each round.
    One that crashes, hangs, or finds other faces than the reference (ONNX Runtime at fp32, where it
    is installed) is never chosen. The result is kept, at the end and whole, for this model,
    machine, Python and version of each backend: ``Detector("auto")`` follows it, and a named
    backend takes the precision and threads that were its fastest.

    Args:
        model: a shipped model's name, or the folder of a bundle.
        images: pictures with faces, like those that will be looked at; None: a picture of drawn
            faces.
        input_sizes: as ``Detector`` takes them; sizes that are not measured go by the nearest.
        threads: numbers of worker threads to try; None: 1, 2, 4, ... up to the big cores, at most
            8.
        rounds: turns of each trial.
        progress: takes the steps of a phase and its name, and yields the steps.

    Raises:
        InvalidOptionError: an option has a value that it does not accept.
        InvalidImageError: an image cannot be read, or the reference finds no face in any.
        ModelNotFoundError: no such model.
        ModelIntegrityError: the model is damaged.
        BackendUnavailableError: no backend runs the model here.
    """
    bundle = load_bundle(model)
    sizes = [check_input_size(size, bundle.anchors.max_stride) for size in input_sizes]
    counts = _check_counts(threads, rounds)
    pictures = [drawn_faces()] if images is None else [read_image(image) for image in images]
    if not sizes or not pictures:
        raise InvalidOptionError("expected at least one input size and one picture, got none")
    known = backends()
    verdicts = _probe_all(list(known), progress)
    usable = {name: known[name] for name, one in verdicts.items() if one.available}
    trials = plan(bundle, list(usable.values()), counts, sizes)
    unavailable = {name: one.reason for name, one in verdicts.items() if not one.available}
    if not trials or not can_start():
        told = "; ".join(f"{name}: {reason}" for name, reason in unavailable.items())
        raise BackendUnavailableError(
            f"expected a backend that runs '{bundle.name}' in a process of its own, but {told}"
        )
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pictures.npz"
        np.savez(file, *pictures)
        with closing(Workers(usable, bundle.path, file)) as workers:
            found = {trial: workers.look(trial) for trial in progress(trials, "load")}
            answers = {trial: answer for trial, answer in found.items() if answer is not None}
            reference, wrong = compare(answers, sizes, workers.failed)
            same = same_arithmetic(answers)
            timed = [trial for trial in answers if trial not in same]
            times = workers.take_turns(timed, progress(range(rounds), "measure"))
    problems = wrong | workers.failed
    for trial, other in same.items():
        if other in times:
            times[trial] = times[other]
        else:
            problems[trial] = problems[other]
    measured = _measurements(trials, verdicts, times, problems)
    tuned.remember(bundle, measured)
    described = DRAWN if images is None else f"{len(pictures)} pictures"
    return Tuning(bundle.name, described, reference, unavailable, measured)


def _check_counts(threads: Sequence[int] | None, rounds: int) -> list[int]:
    """Return the numbers of threads to try."""
    counts = usual_threads(host()) if threads is None else list(dict.fromkeys(threads))
    for name, number in (("rounds", rounds), *(("threads", count) for count in counts)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InvalidOptionError(f"expected {name} to be a positive integer, got {number!r}")
    if not counts:
        raise InvalidOptionError("expected at least one number of threads, got none")
    return counts


def _probe_all(names: Sequence[str], progress: Progress) -> dict[str, Verdict]:
    """Probe anew: what was mended since it was refused takes part."""
    return {name: probe(name, refresh=True) for name in progress(names, "probe")}


def _measurements(
    trials: Sequence[Trial],
    verdicts: Mapping[str, Verdict],
    times: Mapping[Trial, Sequence[float]],
    problems: Mapping[Trial, str],
) -> tuple[Measurement, ...]:
    """Build the rows: by input size, then what may be chosen, then by speed."""
    rows = []
    for size in dict.fromkeys(trial.input_size for trial in trials):
        there = [trial for trial in trials if trial.input_size == size]
        taken = {trial: times[trial] for trial in there if trial in times}
        ratio = ratios(taken, [trial for trial in taken if trial not in problems])
        found = [
            Measurement(
                **asdict(trial),
                version=verdicts[trial.backend].version,
                ms=median(taken[trial]) if trial in taken else None,
                ratio=ratio.get(trial),
                problem=problems.get(trial, ""),
            )
            for trial in there
        ]
        rows += sorted(found, key=lambda one: (not one.works, one.ratio or math.inf))
    return tuple(rows)
