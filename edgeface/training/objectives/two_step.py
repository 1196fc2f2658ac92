"""What RefineFace and ISRN share: the losses of both steps (equations 1 to 4, refineface.txt)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional

from edgeface.anchors import AnchorSpec, prior_boxes
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.two_step import REJECTED_LOGIT, TwoStepOutput
from edgeface.nets.necks.two_step import TwoStepLevels
from edgeface.training.matching import IGNORED, POSITIVE
from edgeface.training.objectives.base import BatchTargets, Losses, Objective, mean_count
from edgeface.training.objectives.classification import classification_losses
from edgeface.training.objectives.second_matching import (
    corners,
    decode,
    encode,
    encode_points,
    match,
)
from edgeface.training.recipe import Recipe


class Anchors(NamedTuple):
    """The A regular anchors of an input size.

    Attributes:
        priors: float32 (A, 4) centre-size boxes.
        levels: int64 (A,) their levels, 0 for the finest.
    """

    priors: torch.Tensor
    levels: torch.Tensor


class Outputs(NamedTuple):
    """All levels' outputs, N pictures by A anchors.

    Attributes:
        logits: (N, A) of the second step.
        deltas: (N, A, 4) of the second step.
        landmarks: (N, A, 10).
        first_logits: (N, B): the first B anchors are classified twice.
        first_deltas: (N, C, 4): the last C anchors are refined twice.
    """

    logits: torch.Tensor
    deltas: torch.Tensor
    landmarks: torch.Tensor
    first_logits: torch.Tensor
    first_deltas: torch.Tensor


class SecondStep(NamedTuple):
    """What the second step learns.

    Attributes:
        labels: int8 (N, A); IGNORED where the first step has rejected the anchor.
        owners: int64 (K,): samples of the K positive anchors.
        faces: int64 (K,): their faces, as rows of the batch's.
        anchors: float32 (K, 4): their centre-size boxes, refined by the first step.
        priors: float32 (K, 4): the regular ones.
        places: int64 (K,): their numbers among the A anchors.
    """

    labels: torch.Tensor
    owners: torch.Tensor
    faces: torch.Tensor
    anchors: torch.Tensor
    priors: torch.Tensor
    places: torch.Tensor


def regular_anchors(spec: AnchorSpec, images: torch.Tensor) -> Anchors:
    """Regular anchors for a batch of pictures, on its device."""
    return _anchors(spec, images.shape[2], images.shape[3], images.device)


@lru_cache(maxsize=8)
def _anchors(spec: AnchorSpec, height: int, width: int, device: torch.device) -> Anchors:
    priors = torch.tensor(prior_boxes(spec, height, width), device=device)
    counts = []
    for level in spec.levels:
        rows, columns = level.grid(height, width)
        counts.append(rows * columns * level.per_cell)
    numbers = torch.arange(len(counts), device=device)
    return Anchors(priors, numbers.repeat_interleave(torch.tensor(counts, device=device)))


def join(levels: list[TwoStepOutput]) -> Outputs:
    """Put the levels' outputs together; both steps' coordinates in float32."""
    logits = torch.cat([level.logits for level in levels], 1).squeeze(2)
    first_logits = [level.first_logits for level in levels if level.first_logits is not None]
    first_deltas = [level.first_deltas for level in levels if level.first_deltas is not None]
    return Outputs(
        logits,
        torch.cat([level.deltas for level in levels], 1).float(),
        torch.cat([level.landmarks for level in levels], 1).float(),
        torch.cat(first_logits, 1).squeeze(2) if first_logits else logits[:, :0],
        torch.cat(first_deltas, 1).float()
        if first_deltas
        else logits[:, :0, None].expand(-1, -1, 4),
    )


def refine(
    priors: torch.Tensor, first_deltas: torch.Tensor, variances: tuple[float, float]
) -> torch.Tensor:
    """Anchors (N, A, 4) of the second step: the last C moved by the first step's deltas."""
    regular = len(priors) - first_deltas.shape[1]
    moved = decode(first_deltas, priors[regular:], variances)
    return torch.cat([priors[:regular].expand(len(first_deltas), -1, -1), moved], 1)


@torch.no_grad()
def match_second_step(
    outputs: Outputs, anchors: Anchors, refined: torch.Tensor, targets: BatchTargets, recipe: Recipe
) -> SecondStep:
    """Match the refined anchors to the faces, and drop what the first step rejects."""
    labels, rows = [], []
    boxes = corners(refined)
    for sample in range(len(boxes)):
        own = torch.nonzero(targets.owners == sample).flatten()
        matched = match(
            boxes[sample], targets.faces[own], targets.ignored[own], recipe.second_matching
        )
        labels.append(matched.labels)
        rows.append(own[matched.faces] if len(own) else matched.faces)
    label, row = torch.stack(labels), torch.stack(rows)
    twice = outputs.first_logits.shape[1]
    label[:, :twice][outputs.first_logits < REJECTED_LOGIT] = IGNORED
    owners, index = torch.nonzero(label == POSITIVE, as_tuple=True)
    return SecondStep(
        label,
        owners,
        row[owners, index],
        refined[owners, index],
        anchors.priors[index],
        index,
    )


def with_margin(
    logits: torch.Tensor, labels: torch.Tensor, anchors: torch.Tensor, alpha: float
) -> torch.Tensor:
    """Scale-aware margin (equations 3 and 4): a face's logit x counts as x - alpha / sqrt(wh).

    The paper writes the margin for "the sample". As in the face recognition losses that it
    follows, we let it bind the faces alone: taken from background as well, it would only shift
    the logits of each size. w and h are the anchor's.

    Args:
        logits: (N, A).
        labels: int8 (N, A).
        anchors: (N, A, 4) or (A, 4) centre-size boxes.
        alpha: 15 in the paper; 0 for no margin.
    """
    margin = alpha / anchors[..., 2:].prod(-1).sqrt()
    return torch.where(labels == POSITIVE, logits.float() - margin, logits.float())


class TwoStepObjective(Objective):
    """Classification and smooth-L1 boxes in both steps, and landmarks in the second.

    The first step's loss counts where a level has one: the classification's on C2 to C4, the
    regression's on C5 to C7, by the recipe's first matching (0.3 and 0.7 in the papers). The
    second step is matched anew on the refined anchors (0.4 and 0.5) and leaves out the anchors
    that the first one rejects. Every loss is divided by its own number of positives.
    """

    margin = 0.0

    def forward(self, net: DetectorNet, images: torch.Tensor, targets: BatchTargets) -> Losses:
        """Losses of a net on a batch."""
        features, levels = net.training_outputs(images)
        outputs, anchors = join(levels), regular_anchors(net.anchors, images)
        refined = refine(anchors.priors, outputs.first_deltas.detach(), net.anchors.variances)
        step = match_second_step(outputs, anchors, refined, targets, self.recipe)
        recipe, variances = self.recipe, net.anchors.variances
        terms = {
            "classes": self._class_loss(outputs.logits, step.labels, refined),
            "boxes": box_loss(outputs, step, targets, variances),
            "landmarks": landmark_loss(outputs, step, targets, variances),
        }
        if twice := outputs.first_logits.shape[1]:
            labels, priors = targets.labels[:, :twice], anchors.priors[:twice]
            terms["first_classes"] = self._class_loss(outputs.first_logits, labels, priors)
        if outputs.first_deltas.shape[1]:
            terms["first_boxes"] = first_box_loss(outputs, targets)
        weights = dict.fromkeys(terms, 1.0)
        weights.update(
            boxes=recipe.box_weight,
            first_boxes=recipe.box_weight,
            landmarks=recipe.landmark_weight,
        )
        for name, value in self.own_terms(features, outputs, anchors, refined, targets).items():
            terms[name], weights[name] = value, self.strength(name)
        total = torch.stack([value * weights[name] for name, value in terms.items()]).sum()
        return Losses(total, {name: value.detach() for name, value in terms.items()})

    def own_terms(
        self,
        features: TwoStepLevels,
        outputs: Outputs,
        anchors: Anchors,
        refined: torch.Tensor,
        targets: BatchTargets,
    ) -> dict[str, torch.Tensor]:
        """Losses that a system adds, by the names of their strengths."""
        raise NotImplementedError

    def _class_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, anchors: torch.Tensor
    ) -> torch.Tensor:
        logits = with_margin(logits, labels, anchors, self.margin)
        losses = classification_losses(logits, labels, self.recipe)
        return losses.sum() / mean_count((labels == POSITIVE).sum(), logits)


def box_loss(
    outputs: Outputs, step: SecondStep, targets: BatchTargets, variances: tuple[float, float]
) -> torch.Tensor:
    """Second term of equation 1: smooth L1 on the refined anchors."""
    wanted = encode(targets.faces[step.faces], step.anchors, variances)
    got = outputs.deltas[step.owners, step.places]
    return functional.smooth_l1_loss(got, wanted, reduction="sum") / mean_count(len(got), got)


def first_box_loss(outputs: Outputs, targets: BatchTargets) -> torch.Tensor:
    """First term of equation 1: smooth L1 on the regular anchors of the levels refined twice."""
    count = targets.labels.shape[1]
    owners, index = targets.positives // count, targets.positives % count
    place = index - (count - outputs.first_deltas.shape[1])
    coarse = place >= 0
    got = outputs.first_deltas[owners[coarse], place[coarse]]
    loss = functional.smooth_l1_loss(got, targets.deltas[coarse], reduction="sum")
    return loss / mean_count(len(got), got)


def landmark_loss(
    outputs: Outputs, step: SecondStep, targets: BatchTargets, variances: tuple[float, float]
) -> torch.Tensor:
    """Smooth L1 of the landmarks, ours: relative to the regular anchors, as the SDK decodes."""
    wanted = encode_points(targets.points[step.faces], step.priors, variances[0])
    known = ~wanted.isnan().any(1)
    got = outputs.landmarks[step.owners[known], step.places[known]]
    loss = functional.smooth_l1_loss(got, wanted[known], reduction="sum")
    return loss / mean_count(len(got), got)
