"""What stops a run: before its first step where it cannot learn, later where its numbers break."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from edgeface.errors import TrainingError
from edgeface.nets import DetectorNet
from edgeface.training.dataset import Batch, FaceDataset, Root
from edgeface.training.objectives import build_objective
from edgeface.training.recipe import Recipe

SAMPLES_TRIED = 200


def check_run(net: DetectorNet, roots: Sequence[Root], recipe: Recipe) -> None:
    """Check that a net can learn from the pictures by the recipe.

    Raises:
        TrainingError: a bad recipe, no pictures, or anchors that no face in them can match.
    """
    recipe.check(net.anchors.max_stride)
    build_objective(net, recipe)
    for phase in recipe.phases:
        dataset = FaceDataset(roots, net.anchors, recipe, phase)
        sides: list[float] = []
        for number in range(SAMPLES_TRIED):
            item = dataset[number]
            boxes = item.sample.boxes[~item.sample.ignore]
            longest = (boxes[:, 2:] - boxes[:, :2]).max(1)
            large_enough = bool((longest >= recipe.matching.smallest).any())
            if large_enough if recipe.assignment == "aligned" else len(item.targets.index):
                break
            sides += longest.tolist()
        else:
            sizes = [f"{size:g}" for level in net.anchors.levels for size in level.sizes]
            faces = f"{len(sides)} faces"
            if sides:
                faces += f" of {np.min(sides):.0f} to {np.max(sides):.0f} pixels"
            raise TrainingError(
                f"expected anchors that faces in the data can match, got anchors of "
                f"{', '.join(sizes)} pixels and {faces} in {SAMPLES_TRIED} samples of "
                f"{phase.size} pixels; change the anchors, the sample size or the data"
            )


def check_finite(name: str, value: torch.Tensor, step: int, batch: Batch) -> None:
    """Raise TrainingError with the batch's pictures where a loss or norm is not finite."""
    if not torch.isfinite(value):
        raise TrainingError(
            f"expected a finite {name} at step {step}, got {value.item()}; look at these pictures "
            "and their labels, or lower the learning rate: " + "; ".join(batch.sources)
        )
