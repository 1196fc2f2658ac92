"""Objectives: what each system learns from, one module per system."""

from __future__ import annotations

from collections.abc import Mapping

from edgeface.errors import TrainingError
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.anchor import AnchorHead, SharedAnchorHead
from edgeface.nets.registry import find_preset
from edgeface.training.objectives.aligned import AlignedObjective
from edgeface.training.objectives.base import (
    BatchTargets,
    Losses,
    Objective,
    TrainingStep,
    mean_count,
)
from edgeface.training.objectives.df2s2 import DF2S2Objective
from edgeface.training.objectives.fanet import FANetObjective
from edgeface.training.objectives.isrn import ISRNObjective
from edgeface.training.objectives.refineface import RefineFaceObjective
from edgeface.training.objectives.retinaface import RetinaFaceObjective
from edgeface.training.recipe import Recipe

__all__ = [
    "BatchTargets",
    "Losses",
    "Objective",
    "TrainingStep",
    "build_objective",
    "mean_count",
    "training_terms",
]

OBJECTIVES: dict[str, type[Objective]] = {
    "retinaface": RetinaFaceObjective,
    "refineface": RefineFaceObjective,
    "isrn": ISRNObjective,
    "df2s2": DF2S2Objective,
    "fanet": FANetObjective,
    "nano": AlignedObjective,
}


def training_terms(preset: str) -> Mapping[str, float]:
    """Training terms of a preset's system, each with its paper's strength."""
    return OBJECTIVES[find_preset(preset).system].strengths


def build_objective(
    net: DetectorNet, recipe: Recipe, teacher: DetectorNet | None = None
) -> Objective:
    """Objective of the system that a net belongs to.

    Args:
        net: the net to train.
        recipe: what it learns.
        teacher: a trained net whose answers it learns too, beside assignment "aligned".

    Raises:
        TrainingError: the recipe sets the strength of a term that the system does not have, asks
            for an assignment that its head cannot learn by, or the teacher does not fit.
    """
    objective = OBJECTIVES[net.system]
    for term, _ in recipe.supervision:
        if term not in objective.strengths:
            known = ", ".join(objective.strengths) or "none"
            raise TrainingError(
                f"expected supervision of {net.system} ({known}) in the recipe, got '{term}'"
            )
    if recipe.assignment == "aligned":
        _check_aligned(net, recipe)
        if teacher is not None and teacher.anchors != net.anchors:
            raise TrainingError(
                f"expected a teacher with the anchors of '{net.preset}', got '{teacher.preset}' "
                "with others; choose one of the same system"
            )
        return AlignedObjective(net, recipe, teacher)
    if teacher is not None:
        raise TrainingError(
            "expected assignment 'aligned' in the recipe of a net with a teacher, got "
            f"'{recipe.assignment}'; choose the recipe 'aligned', or leave the teacher out"
        )
    return objective(net, recipe)


def _check_aligned(net: DetectorNet, recipe: Recipe) -> None:
    if not isinstance(net.head, (AnchorHead, SharedAnchorHead)):
        raise TrainingError(
            f"expected assignment 'anchors' in the recipe of {net.system}, got 'aligned', which is "
            "for heads with one step of anchors, such as RetinaFace's"
        )
    if terms := [name for name, strength in recipe.supervision if strength]:
        raise TrainingError(
            f"expected no supervision beside assignment 'aligned', got {', '.join(terms)}; set it "
            "to 0"
        )
