"""Runs of an ablation: each arm with each seed, once, resumable, shared by several processes."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeface.bundle import write_atomic
from edgeface.errors import TrainingError
from edgeface.evaluation.average_precision import Detections
from edgeface.evaluation.run import detect, score
from edgeface.evaluation.wider import WiderImage
from edgeface.nets import build
from edgeface.training.ablation.arms import Arm, apply
from edgeface.training.checkpoint import LAST
from edgeface.training.dataset import Root
from edgeface.training.guards import check_run
from edgeface.training.loop import Settings, train
from edgeface.training.recipe import Recipe
from edgeface.training.recipes import scale_steps
from edgeface.training.validation import TorchDetector

IDENTITY, RESULT, DETECTIONS, LOCK = "run.json", "result.json", "detections.npz", "lock"
PACE_STEPS, PACE_SKIPPED = 12, 4

Progress = Callable[[int, str], None]


@dataclass(frozen=True)
class Examination:
    """What every arm is measured on.

    Attributes:
        name: of the set, for the table.
        pictures: with their ground truth.
        long_side: pictures are shrunk to it; None keeps their size.
        graded: easy, medium and hard differ; False where every face counts in all three.
    """

    name: str
    pictures: Sequence[WiderImage]
    long_side: int | None
    graded: bool

    def fingerprint(self) -> dict[str, Any]:
        """What two runs must share for their figures to be comparable."""
        names = "\n".join(f"{picture.event}/{picture.name}" for picture in self.pictures)
        return {
            "pictures": len(self.pictures),
            "names": hashlib.sha256(names.encode()).hexdigest()[:16],
            "long_side": self.long_side,
        }


@dataclass(frozen=True)
class Run:
    """One training of one arm.

    Attributes:
        arm: its row of the table.
        preset: specification with the arm's options.
        recipe: with the arm's values and the seed.
        folder: where it lives; a finished run has ``result.json`` there.
    """

    arm: Arm
    preset: str
    recipe: Recipe
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its figures are there."""
        return (self.folder / RESULT).is_file()

    def figures(self) -> dict[str, Any]:
        """Its figures, as ``execute`` wrote them."""
        content: dict[str, Any] = json.loads((self.folder / RESULT).read_text("utf-8"))
        return content

    def detections(self) -> list[Detections]:
        """Its detections, one entry per picture of the examination."""
        with np.load(self.folder / DETECTIONS) as stored:
            ends = np.cumsum(stored["counts"])[:-1]
            boxes, scores = np.split(stored["boxes"], ends), np.split(stored["scores"], ends)
        return [Detections.sort(*pair) for pair in zip(boxes, scores, strict=True)]


def plan(
    arms: Sequence[Arm], seeds: Sequence[int], preset: str, recipe: Recipe, output: Path
) -> list[Run]:
    """Every arm with every seed, seed by seed, so that a first whole table comes early.

    Raises:
        InvalidOptionError: a switch that the preset and recipe do not have.
        TrainingError: two arms of one name, or none.
    """
    slugs = [_slug(arm.name) for arm in arms]
    if not arms or len(set(slugs)) < len(slugs):
        raise TrainingError(f"expected arms of different names, got {[a.name for a in arms]}")
    runs = []
    for seed in seeds:
        for arm, slug in zip(arms, slugs, strict=True):
            specification, changed = apply(arm.switches, preset, replace(recipe, seed=seed))
            folder = output / slug / f"seed-{seed}"
            runs.append(Run(arm, build(specification).preset, changed, folder))
    return runs


def check(runs: Sequence[Run], roots: Sequence[Root], origin: dict[str, Any]) -> None:
    """Find out before the first step whether any run cannot start or go on.

    Args:
        runs: of ``plan``.
        roots: training pictures.
        origin: what else the figures depend on: data, initial weights, examination.

    Raises:
        TrainingError: a recipe that cannot work, or a folder of a run that was different.
    """
    for run in runs:
        check_run(build(run.preset), roots, run.recipe)
        path = run.folder / IDENTITY
        if path.is_file():
            known, wanted = json.loads(path.read_text("utf-8")), _identity(run, origin)
            different = sorted(key for key in wanted if known.get(key) != wanted[key])
            if different:
                raise TrainingError(
                    f"expected in {run.folder} a run with the same {', '.join(different)}, got "
                    f"{ {key: known.get(key) for key in different} }; choose another output folder"
                )


def execute(
    run: Run,
    roots: Sequence[Root],
    examination: Examination,
    origin: dict[str, Any],
    settings: Settings,
    progress: Progress,
) -> bool:
    """Train and examine a run that is not finished.

    Args:
        run: of ``plan``.
        roots: training pictures.
        examination: what it is measured on.
        origin: as for ``check``.
        settings: how it is executed; ``output`` and ``resume`` are the run's own.
        progress: as for ``train``.

    Returns:
        False where another process is at it.

    Raises:
        TrainingError: the training cannot go on, such as for a loss that is not finite.
    """
    with _locked(run.folder) as mine:
        if not mine or run.finished:
            return mine
        identity = json.dumps(_identity(run, origin), indent=2)
        write_atomic(run.folder / IDENTITY, identity.encode())
        started = time.monotonic()
        torch.manual_seed(run.recipe.seed)
        torch.compiler.reset()
        resume = (run.folder / LAST).is_file()
        own = replace(settings, output=run.folder, resume=resume)
        net = train(build(run.preset), roots, run.recipe, own, progress=progress)
        detections = detect(TorchDetector(net, examination.long_side), examination.pictures)
        _store_detections(run.folder / DETECTIONS, detections)
        figures = {
            "arm": run.arm.name,
            "switches": dict(run.arm.switches),
            "preset": run.preset,
            "seed": run.recipe.seed,
            "steps": run.recipe.steps,
            "parameters": sum(p.numel() for p in net.parameters()),
            "seconds": round(time.monotonic() - started),
            **score(detections, examination.pictures).to_dict(),
        }
        write_atomic(run.folder / RESULT, (json.dumps(figures, indent=2) + "\n").encode())
        return True


def steps_in(minutes: float, run: Run, roots: Sequence[Root], settings: Settings) -> int:
    """Steps of a run that take about so many minutes here, by the pace of its first ones."""
    times = []
    short = scale_steps(run.recipe, PACE_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        own = replace(settings, output=Path(folder), log_steps=1, save_minutes=minutes)
        train(
            build(run.preset), roots, short, own,
            progress=lambda _done, _text: times.append(time.monotonic()),
        )  # fmt: skip
    pace = (times[-1] - times[PACE_SKIPPED - 1]) / (len(times) - PACE_SKIPPED)
    return max(round(minutes * 60 / pace), len(short.phases))


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Keep other processes from a run; the lock goes with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _identity(run: Run, origin: dict[str, Any]) -> dict[str, Any]:
    recipe = dataclasses.asdict(run.recipe)
    identity: dict[str, Any] = json.loads(json.dumps({"preset": run.preset, **recipe, **origin}))
    return identity


def _store_detections(path: Path, detections: Sequence[Detections]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        counts=np.array([len(found.scores) for found in detections], np.int64),
        boxes=np.concatenate([found.boxes for found in detections]),
        scores=np.concatenate([found.scores for found in detections]),
    )
    write_atomic(path, buffer.getvalue())


def _slug(name: str) -> str:
    return "".join(char if char.isalnum() or char in "+-." else "_" for char in name) or "arm"
