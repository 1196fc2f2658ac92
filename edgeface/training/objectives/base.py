"""What every system's objective takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import distributed, nn

from edgeface.nets.detector import DetectorNet
from edgeface.training.recipe import Recipe


class BatchTargets(NamedTuple):
    """Targets of a batch of N samples with A anchors each and F faces in all.

    Attributes:
        labels: int8 (N, A): positive 1, negative 0, ignored -1, by the recipe's first matching.
        positives: int64 (K,): positive anchors in the flattened (N * A).
        deltas: float32 (K, 4): their box deltas.
        landmarks: float32 (K, 10): their landmark offsets; NaN where unlabelled.
        faces: float32 (F, 4): the faces' corner boxes in pixels of the samples.
        points: float32 (F, 5, 2): their landmarks in pixels; NaN where unlabelled.
        owners: int64 (F,): the sample that each face belongs to.
        ignored: bool (F,): faces that are neither learnt nor punished.
    """

    labels: torch.Tensor
    positives: torch.Tensor
    deltas: torch.Tensor
    landmarks: torch.Tensor
    faces: torch.Tensor
    points: torch.Tensor
    owners: torch.Tensor
    ignored: torch.Tensor


class Losses(NamedTuple):
    """Losses of a batch.

    Attributes:
        total: the weighted scalar that is minimised.
        terms: detached scalars for the log, before their weights, by name.
    """

    total: torch.Tensor
    terms: dict[str, torch.Tensor]


class Objective(nn.Module):
    """What a system learns from: its losses, and the modules that exist only in training.

    Such modules are children of the objective, never of the net, so that no exported graph can
    hold them. The checkpoint keeps them for resumption.

    Attributes:
        strengths: the system's own training terms and modules, each with its paper's strength;
            what a recipe's ``supervision`` may name.
    """

    strengths: ClassVar[Mapping[str, float]] = {}

    def __init__(self, net: DetectorNet, recipe: Recipe) -> None:  # noqa: ARG002
        """Prepare to train a net; its parts' widths size the modules, it is not kept."""
        super().__init__()
        self.recipe = recipe

    def strength(self, term: str) -> float:
        """Strength of one of ``strengths``: the recipe's, or else the paper's."""
        return self.recipe.strength(term, self.strengths[term])

    def forward(self, net: DetectorNet, images: torch.Tensor, targets: BatchTargets) -> Losses:
        """Losses of a net on a batch of float (N, 3, H, W) BGR pictures."""
        raise NotImplementedError


class TrainingStep(nn.Module):
    """Net and objective in one module, so that one forward pass spans both.

    Where the recipe fixes the backbone's first layers, they get no gradient, and their norms keep
    the statistics that they have, in training too.
    """

    def __init__(self, net: DetectorNet, objective: Objective) -> None:
        super().__init__()
        self.net = net
        self.objective = objective
        self.fixed: list[nn.Module] = []
        if objective.recipe.fixed_layers:
            names: tuple[str, ...] = net.backbone.first_layers  # type: ignore[assignment]
            self.fixed = [net.backbone.get_submodule(name) for name in names]
        for layer in self.fixed:
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> TrainingStep:
        """Set the mode of all but the fixed layers."""
        super().train(mode)
        for layer in self.fixed:
            layer.eval()
        return self

    def forward(self, images: torch.Tensor, targets: BatchTargets) -> Losses:
        """Losses of a batch; see ``Objective``."""
        losses: Losses = self.objective(self.net, images, targets)
        return losses


def total_count(count: int | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Sum of a count over the processes of a distributed run.

    Args:
        count: this process's count, or several.
        like: a tensor on the device that the result should be on.
    """
    total = torch.as_tensor(count, dtype=torch.float32, device=like.device).clone()
    if distributed.is_initialized():
        distributed.all_reduce(total)
    return total


def mean_count(count: int | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Average of a count over the processes of a distributed run; their sum is at least 1.

    A loss that is summed and divided by it has, averaged over the processes, the gradient that one
    process with all samples would have.

    Args:
        count: this process's count, or several.
        like: a tensor on the device that the result should be on.
    """
    processes = distributed.get_world_size() if distributed.is_initialized() else 1
    return total_count(count, like).clamp(min=1) / processes


def largest_of_all(values: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of this process's share of the largest values of all processes.

    Args:
        values: (K,), detached; processes may have different numbers of them.
        count: how many over all processes, the same in each.
    """
    most, order = values.topk(min(count, len(values)))
    if not distributed.is_initialized():
        return order
    padded = values.new_full((count,), -torch.inf)
    padded[: len(most)] = most
    gathered = [torch.empty_like(padded) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, padded)
    largest = torch.cat(gathered).topk(count).indices
    share = (largest // count == distributed.get_rank()).sum()
    return order[: int(share)]
