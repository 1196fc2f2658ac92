"""Recipes: everything that decides a training run, as data."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeface.errors import TrainingError
from edgeface.training.matching import Matching


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one sample size.

    Attributes:
        steps: optimiser steps.
        size: side of the square samples in pixels; a multiple of the largest stride.
        batch: samples per step over all processes.
        crop: range of the random crop's side, as a share of the picture's short side.
    """

    steps: int
    size: int
    batch: int
    crop: tuple[float, float] = (0.3, 1.0)


@dataclass(frozen=True)
class Mix:
    """Probability of each kind of sample; the rest are random crops.

    Attributes:
        mosaic: four pictures in one sample.
        zoom_out: a picture shrunk into a canvas of up to ``zoom_out_most`` times its size.
        close_up: one face fills 40 to 100 % of the sample.
        anchor_sampling: data-anchor-sampling: one face of the size of a random level's anchors.
        close_up_pixels: smallest face, in pixels of the stored picture, for a close-up.
    """

    mosaic: float = 0.2
    zoom_out: float = 0.1
    close_up: float = 0.2
    anchor_sampling: float = 0.0
    zoom_out_most: float = 2.0
    close_up_pixels: float = 64.0


@dataclass(frozen=True)
class Recipe:
    """A training run.

    The defaults are RetinaFace's (section 4.2, retinaface.txt): SGD with momentum 0.9 and weight
    decay 5e-4, warm-up from a tenth of the learning rate, steps of a tenth at 55/80 and 68/80,
    OHEM 3:1, lambda 0.25 and 0.1.

    Attributes:
        preset: net to train.
        assignment: "anchors", which learn the faces that they overlap, by the matching rules, or
            "aligned": the net's own predictions decide (``objectives.aligned``), and of the
            matching rules only the smallest face counts.
        phases: stretches of training, in order.
        optimizer: "sgd" with momentum; "adamw", whose first beta is the momentum; or "muon" on
            kernels with AdamW on the rest. The last two have AdamW's kind of weight decay.
        learning_rate: peak learning rate.
        warm_up: share of all steps over which it rises.
        warm_up_from: share of the peak at which it starts.
        schedule: "step" as in the papers, or "cosine".
        milestones: shares of all steps at which "step" divides the learning rate by ten.
        clip: largest gradient norm.
        classification: "ohem", hard negatives by the softmax loss, or "focal", all anchors by the
            focal loss (RetinaNet, Lin et al. 2017); each system's paper names one.
        negatives_per_positive: the ratio of "ohem".
        focal_alpha: the focal loss's weight of faces; background has the rest to 1.
        focal_gamma: the focal loss's exponent.
        second_matching: rules of the second step of systems that have one.
        teacher_weight: weight of a teacher's answers, where the run has one.
        supervision: strengths of a system's own training terms and modules, by name; one that is
            not listed has its paper's strength, 0 switches it off.
        fixed_layers: keep the backbone's first two convolutions as the initial weights have them.
        average: decay of the exponential moving average of the weights that is kept.
        held_out: share of the fully labelled pictures kept out of training, for evaluation.
        event_weights: sampling weight of pictures of a WIDER FACE event; others 1.
    """

    preset: str
    phases: tuple[Phase, ...] = (Phase(8000, 640, 32),)
    assignment: str = "anchors"
    optimizer: str = "sgd"
    learning_rate: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up: float = 5 / 80
    warm_up_from: float = 0.1
    schedule: str = "step"
    milestones: tuple[float, ...] = (55 / 80, 68 / 80)
    clip: float = 20.0
    fixed_layers: bool = False
    average: float = 0.998
    box_weight: float = 0.25
    landmark_weight: float = 0.1
    classification: str = "ohem"
    negatives_per_positive: float = 3.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    matching: Matching = field(default_factory=Matching)
    second_matching: Matching = field(default_factory=Matching)
    teacher_weight: float = 0.5
    supervision: tuple[tuple[str, float], ...] = ()
    mix: Mix = Mix()
    held_out: float = 0.03
    event_weights: tuple[tuple[str, float], ...] = ()
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def strength(self, term: str, default: float) -> float:
        """Strength of one of the system's own training terms."""
        return dict(self.supervision).get(term, default)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        warm = int(self.steps * self.warm_up)
        if step < warm:
            risen = self.warm_up_from + (1 - self.warm_up_from) * step / warm
            return self.learning_rate * risen
        if self.schedule == "cosine":
            progress = (step - warm) / max(self.steps - warm, 1)
            return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
        passed = sum(step >= self.steps * milestone for milestone in self.milestones)
        return self.learning_rate * 0.1**passed

    def check(self, max_stride: int) -> None:
        """Raise TrainingError where a value makes no sense."""
        expectations = {
            "at least one phase": bool(self.phases),
            "assignment 'anchors' or 'aligned'": self.assignment in ("anchors", "aligned"),
            "optimizer 'sgd', 'adamw' or 'muon'": self.optimizer in ("sgd", "adamw", "muon"),
            "schedule 'step' or 'cosine'": self.schedule in ("step", "cosine"),
            "classification 'ohem' or 'focal'": self.classification in ("ohem", "focal"),
            "positive steps and batches": all(p.steps > 0 and p.batch > 0 for p in self.phases),
            f"sample sizes that are multiples of {max_stride}": all(
                p.size > 0 and p.size % max_stride == 0 for p in self.phases
            ),
            "crops 0 < smallest <= largest": all(0 < p.crop[0] <= p.crop[1] for p in self.phases),
            "a mix that adds up to at most 1": 0
            <= self.mix.mosaic + self.mix.zoom_out + self.mix.close_up + self.mix.anchor_sampling
            <= 1,
            "0 <= held_out < 1": 0 <= self.held_out < 1,
            "a positive learning rate": self.learning_rate > 0,
            "matching with negative <= positive": self.matching.negative <= self.matching.positive,
        }
        for expected, holds in expectations.items():
            if not holds:
                raise TrainingError(f"expected {expected} in the recipe, got {self}")

    def save(self, path: Path) -> None:
        """Write the recipe as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", "utf-8")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from JSON; raises TrainingError where it is malformed or has unknown keys."""
    try:
        return recipe_from(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(
            f"expected a recipe as 'edgeface train' writes it in {path}, got {error!r}"
        ) from error


def recipe_from(content: dict[str, Any]) -> Recipe:
    """Build a recipe from the dictionary that ``dataclasses.asdict`` gives."""
    values = dict(content)
    if "phases" in values:
        values["phases"] = tuple(
            Phase(**{**phase, "crop": tuple(phase.get("crop", Phase.crop))})
            for phase in values["phases"]
        )
    for name in ("matching", "second_matching"):
        if name in values:
            values[name] = Matching(**values[name])
    if "mix" in values:
        values["mix"] = Mix(**values["mix"])
    for name in ("event_weights", "supervision"):
        if name in values:
            values[name] = tuple((str(key), float(weight)) for key, weight in values[name])
    if "milestones" in values:
        values["milestones"] = tuple(float(share) for share in values["milestones"])
    return Recipe(**values)
