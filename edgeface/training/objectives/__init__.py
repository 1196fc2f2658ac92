"""Objectives: what each system learns from, one module per system."""

from __future__ import annotations

from edgeface.nets.detector import DetectorNet
from edgeface.training.objectives.base import (
    BatchTargets,
    Losses,
    Objective,
    TrainingStep,
    mean_count,
)
from edgeface.training.objectives.retinaface import RetinaFaceObjective
from edgeface.training.recipe import Recipe

__all__ = [
    "BatchTargets",
    "Losses",
    "Objective",
    "TrainingStep",
    "build_objective",
    "mean_count",
]

OBJECTIVES = {"retinaface": RetinaFaceObjective}


def build_objective(net: DetectorNet, recipe: Recipe) -> Objective:
    """Objective of the system that a net belongs to."""
    return OBJECTIVES[net.system](recipe)
