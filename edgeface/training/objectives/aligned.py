"""Task-aligned learning: the net's own predictions decide which anchors learn which face.

Which anchors a face gets follows TOOD (Feng et al., ICCV 2021), how many of them SimOTA (YOLOX, Ge
et al. 2021), the loss of the scores Generalized Focal Loss (Li et al., NeurIPS 2020), that of the
boxes Distance-IoU (Zheng et al., AAAI 2020). Unlike matching by fixed anchors it teaches scores how
well a box fits, and needs one anchor per cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from edgeface.anchors import AnchorSpec, prior_boxes
from edgeface.nets.detector import DetectorNet
from edgeface.nets.heads.anchor import LevelOutput
from edgeface.training.objectives.base import BatchTargets, Losses, Objective, mean_count
from edgeface.training.objectives.boxes import decode_boxes, distance_iou, iou, share_inside
from edgeface.training.objectives.distillation import distillation_loss
from edgeface.training.recipe import Recipe

SCORE_POWER, OVERLAP_POWER = 0.5, 6.0
MOST_CELLS_PER_FACE = 10
# A cell learns a face if its centre lies in it, or this many strides from the face's centre: tiny
# faces hold no cell's centre.
REACH = 1.0
# Scores learn the square root of the overlap, between "a face" and "a box that fits".
QUALITY_POWER = 0.5
FOCUS = 2.0
# Anchors that learn nothing may box a face this well; NMS drops them.
GOOD_OVERLAP = 0.5
# Nor is an anchor punished whose box lies by this share in an ignored face.
HIDDEN_SHARE = 0.5
# Landmark errors, in face sizes, below which the loss is quadratic.
LANDMARK_BEND = 0.05
# Weight of a teacher's boxes, to its scores' 1.
BOX_SHARE = 2.0


@dataclass(frozen=True)
class Assignment:
    """Pairs of an anchor and the face that it learns.

    Attributes:
        cells: int64 (K,): anchors in the flattened (N * A).
        faces: int64 (K,): faces of the batch.
        quality: float32 (K,): what the anchors' scores learn.
        punished: bool (N, A): anchors that learn to be background, or a face.
    """

    cells: torch.Tensor
    faces: torch.Tensor
    quality: torch.Tensor
    punished: torch.Tensor


class AlignedObjective(Objective):
    """Scores, boxes and landmarks of any head with one step of anchors.

    Args:
        net: the net to train.
        recipe: the weights of the losses.
        teacher: a trained net with the same anchors, whose scores and boxes are learnt too.
    """

    def __init__(
        self, net: DetectorNet, recipe: Recipe, teacher: DetectorNet | None = None
    ) -> None:
        super().__init__(net, recipe)
        self.teacher = teacher
        if teacher is not None:
            teacher.requires_grad_(False)

    def train(self, mode: bool = True) -> AlignedObjective:
        """Set the mode; the teacher keeps its batch statistics."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, net: DetectorNet, images: torch.Tensor, targets: BatchTargets) -> Losses:
        """Losses of a net on a batch."""
        outputs: list[LevelOutput] = net.training_outputs(images).head
        height, width = images.shape[2:]
        losses = aligned_loss(outputs, net.anchors, (height, width), targets, self.recipe)
        if self.teacher is None:
            return losses
        scores, boxes = distillation_loss(
            outputs, self.teacher(images), net.anchors, (height, width)
        )
        taught = self.recipe.teacher_weight * (scores + BOX_SHARE * boxes)
        terms = {"taught_scores": scores.detach(), "taught_boxes": boxes.detach()}
        return Losses(losses.total + taught, {**losses.terms, **terms})


def aligned_loss(
    outputs: list[LevelOutput],
    anchors: AnchorSpec,
    size: tuple[int, int],
    targets: BatchTargets,
    recipe: Recipe,
) -> Losses:
    """Quality focal loss of the scores, Distance-IoU of the boxes, smooth L1 of the landmarks.

    Scores and boxes are divided by the sum of the qualities, landmarks by the anchors whose face
    has them. A landmark's error is in units of its face's size, so that all sizes count alike.

    Args:
        outputs: levels as the net returns them, finest first; logits of background and face.
        anchors: their geometry.
        size: height and width of the pictures in pixels.
        targets: the faces; what fixed anchors would learn is not looked at.
        recipe: the weights of boxes and landmarks, and the smallest face.
    """
    logits = torch.cat([level.logits for level in outputs], 1).float()
    deltas = torch.cat([level.deltas for level in outputs], 1).float()
    landmarks = torch.cat([level.landmarks for level in outputs], 1).flatten(0, 1)
    priors = torch.from_numpy(prior_boxes(anchors, *size)).to(logits.device)
    strides = torch.cat(
        [
            torch.full((level.logits.shape[1],), float(spec.stride), device=logits.device)
            for level, spec in zip(outputs, anchors.levels, strict=True)
        ]
    )
    margin = logits[..., 1] - logits[..., 0]
    boxes = decode_boxes(priors, deltas, anchors.variances)
    found = assign(
        margin.detach().sigmoid(),
        boxes.detach(),
        priors,
        strides,
        targets,
        recipe.matching.smallest,
    )
    wanted = torch.zeros_like(margin).flatten()
    wanted[found.cells] = found.quality
    divisor = mean_count(found.quality.sum(), margin)

    scores = quality_focal_loss(margin, wanted.view_as(margin)) * found.punished
    class_loss = scores.sum() / divisor
    chosen = boxes.flatten(0, 1)[found.cells]
    apart = 1 - distance_iou(chosen, targets.faces[found.faces])
    box_loss = (apart * found.quality).sum() / divisor

    points = targets.points[found.faces].flatten(1)
    labelled = ~points.isnan().any(1)
    cells, faces = found.cells[labelled], found.faces[labelled]
    prior = priors[cells % len(priors)]
    offsets = landmarks[cells].float().view(-1, 5, 2) * anchors.variances[0]
    predicted = prior[:, None, :2] + offsets * prior[:, None, 2:]
    sides = targets.faces[faces, 2:] - targets.faces[faces, :2]
    scale = sides.prod(1).clamp(min=1).sqrt()[:, None]
    errors = (predicted.flatten(1) - points[labelled]) / scale
    point_loss = functional.smooth_l1_loss(
        errors, torch.zeros_like(errors), reduction="sum", beta=LANDMARK_BEND
    )
    point_loss = point_loss / errors.shape[1] / mean_count(labelled.sum(), margin)
    total = class_loss + recipe.box_weight * box_loss + recipe.landmark_weight * point_loss
    terms = {"classes": class_loss, "boxes": box_loss, "landmarks": point_loss}
    return Losses(total, {name: value.detach() for name, value in terms.items()})


@torch.no_grad()
def assign(
    scores: torch.Tensor,
    boxes: torch.Tensor,
    priors: torch.Tensor,
    strides: torch.Tensor,
    targets: BatchTargets,
    smallest: float,
) -> Assignment:
    """Give each face the anchors that score it and box it best, more where more box it well.

    An anchor that several faces want learns the one that it boxes best. One that learns no face is
    not punished where its box fits a face nevertheless, or lies by half in an ignored one.

    Args:
        scores: (N, A) in 0 to 1.
        boxes: (N, A, 4) corners in pixels.
        priors: (A, 4) centre-size.
        strides: (A,) of each anchor's level.
        targets: the faces.
        smallest: faces with a longer side under this many pixels are ignored.
    """
    pictures, count = scores.shape
    sides = targets.faces[:, 2:] - targets.faces[:, :2]
    ignored = targets.ignored | (sides.amax(1) < smallest)
    learnt = (~ignored).nonzero().squeeze(1)
    faces, owners = targets.faces[learnt], targets.owners[learnt]

    centres = priors[None, :, :2]
    inside = ((centres > faces[:, None, :2]) & (centres < faces[:, None, 2:])).all(2)
    middle = (faces[:, None, :2] + faces[:, None, 2:]) / 2
    near = (centres - middle).abs().amax(2) < REACH * strides
    overlap = iou(boxes[owners], faces[:, None])
    possible = overlap * (inside | near)
    metric = scores[owners] ** SCORE_POWER * possible**OVERLAP_POWER
    most = min(MOST_CELLS_PER_FACE, count)
    best, cells = metric.topk(most, 1)
    wanted = possible.topk(most, 1).values.sum(1).int().clamp(min=1)
    taken = (torch.arange(most, device=scores.device) < wanted[:, None]) & (best > 0)
    pair_face, rank = taken.nonzero(as_tuple=True)
    cells = cells[pair_face, rank]
    fit = overlap[pair_face, cells]
    flat = owners[pair_face] * count + cells

    winner = fit.new_zeros(pictures * count).scatter_reduce(0, flat, fit, "amax")
    kept = fit >= winner[flat]
    pair_face, flat, fit = pair_face[kept], flat[kept], fit[kept]

    shadows, shadow_owners = targets.faces[ignored], targets.owners[ignored]
    covered = share_inside(boxes[shadow_owners], shadows[:, None]) >= HIDDEN_SHARE
    spared = torch.zeros_like(scores)
    spared.index_add_(0, owners, (overlap >= GOOD_OVERLAP).float())
    spared.index_add_(0, shadow_owners, covered.float())
    punished = (spared == 0).flatten()
    punished[flat] = True
    return Assignment(flat, learnt[pair_face], fit**QUALITY_POWER, punished.view_as(scores))


def quality_focal_loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with soft targets, weighted by the squared distance from them (QFL, eq. 2)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return entropy * (logits.sigmoid() - wanted).abs() ** FOCUS
