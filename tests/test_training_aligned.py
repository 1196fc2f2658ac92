"""Task-aligned assignment and its losses, against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeface.anchors import AnchorLevel, AnchorSpec, prior_boxes
from edgeface.errors import TrainingError
from edgeface.training.matching import encode_boxes

torch = pytest.importorskip("torch")

from edgeface.nets import build  # noqa: E402
from edgeface.nets.heads.anchor import LevelOutput  # noqa: E402
from edgeface.training.objectives import BatchTargets, build_objective  # noqa: E402
from edgeface.training.objectives.aligned import (  # noqa: E402
    GOOD_OVERLAP,
    MOST_CELLS_PER_FACE,
    QUALITY_POWER,
    Assignment,
    aligned_loss,
    assign,
    quality_focal_loss,
)
from edgeface.training.objectives.boxes import (  # noqa: E402
    decode_boxes,
    distance_iou,
    iou,
    share_inside,
)
from edgeface.training.recipe import Recipe  # noqa: E402
from edgeface.training.recipes import choose_recipe  # noqa: E402

SIDE = 64
SPEC = AnchorSpec((AnchorLevel(8, (24.0,)), AnchorLevel(16, (64.0,))), (0.25, 0.25))
PRIORS = torch.from_numpy(prior_boxes(SPEC, SIDE, SIDE))
CELLS = len(PRIORS)
STRIDES = torch.tensor([8.0] * 64 + [16.0] * 16)
RECIPE = replace(choose_recipe("edgeface_nano", None), box_weight=2.0, landmark_weight=2.0)


def targets(
    faces: list[list[float]],
    owners: list[int] | None = None,
    ignored: list[bool] | None = None,
    points: torch.Tensor | None = None,
    pictures: int = 1,
) -> BatchTargets:
    count = len(faces)
    boxes = torch.tensor(faces, dtype=torch.float32).reshape(-1, 4)
    if points is None:
        points = torch.full((count, 5, 2), torch.nan)
    return BatchTargets(
        torch.zeros(pictures, CELLS, dtype=torch.int8),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 4),
        torch.zeros(0, 10),
        boxes,
        points,
        torch.tensor(owners or [0] * count, dtype=torch.int64),
        torch.tensor(ignored or [False] * count, dtype=torch.bool),
    )


def prior_corners(pictures: int = 1) -> torch.Tensor:
    return decode_boxes(PRIORS, torch.zeros(pictures, CELLS, 4), SPEC.variances)


def run(
    wanted: BatchTargets,
    boxes: torch.Tensor | None = None,
    scores: torch.Tensor | None = None,
    smallest: float = 4.0,
) -> Assignment:
    boxes = prior_corners() if boxes is None else boxes
    scores = torch.full(boxes.shape[:2], 0.1) if scores is None else scores
    return assign(scores, boxes, PRIORS, STRIDES, wanted, smallest)


def test_boxes_decode_to_what_they_were_encoded_from() -> None:
    priors = PRIORS.numpy()
    boxes = np.random.default_rng(0).uniform(0, 30, (CELLS, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2] + 2
    deltas = torch.from_numpy(encode_boxes(priors, boxes, SPEC.variances))
    assert torch.allclose(
        decode_boxes(PRIORS, deltas, SPEC.variances), torch.from_numpy(boxes), atol=1e-3
    )
    huge = decode_boxes(PRIORS, torch.full((CELLS, 4), 1e6), SPEC.variances)
    assert huge.isfinite().all()


def test_overlaps() -> None:
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    half = torch.tensor([[5.0, 0.0, 15.0, 10.0]])
    inside = torch.tensor([[2.0, 2.0, 7.0, 7.0]])
    assert iou(box, box).item() == 1
    assert iou(box, half).item() == pytest.approx(50 / 150)
    assert share_inside(inside, box).item() == 1
    assert share_inside(box, inside).item() == pytest.approx(0.25)
    assert distance_iou(box, box).item() == 1
    assert distance_iou(box, half).item() == pytest.approx(1 / 3 - 25 / (15**2 + 10**2))
    apart = torch.tensor([[90.0, 0.0, 100.0, 10.0]])
    assert distance_iou(box, apart).item() == pytest.approx(-(90**2) / (100**2 + 10**2))
    nothing = torch.zeros(1, 4)
    assert distance_iou(nothing, nothing).isfinite().all()


def test_the_score_loss_is_the_cross_entropy_times_the_squared_distance() -> None:
    logit, wanted = torch.tensor([0.3]), torch.tensor([0.7])
    score = torch.sigmoid(logit)
    entropy = -(wanted * score.log() + (1 - wanted) * (1 - score).log())
    loss = quality_focal_loss(logit, wanted)
    assert torch.allclose(loss, entropy * (wanted - score) ** 2)
    there = torch.tensor([0.7]).logit()
    assert quality_focal_loss(there, wanted).item() == pytest.approx(0, abs=1e-9)


def test_a_face_takes_the_cells_that_box_it_best_and_they_learn_how_well() -> None:
    face = [[12.0, 12.0, 36.0, 36.0]]
    boxes = prior_corners()
    best = 27  # row 3, column 3 of the fine level: centre (28, 28)
    boxes[0, best] = torch.tensor(face[0])
    found = run(targets(face), boxes)
    assert 1 < len(found.cells) <= MOST_CELLS_PER_FACE
    assert best in found.cells.tolist()
    fits = iou(boxes[0, found.cells], torch.tensor(face))
    assert torch.allclose(found.quality, fits**QUALITY_POWER)
    assert (found.faces == 0).all()
    centres = PRIORS[found.cells, :2]
    near = (centres - 24).abs().amax(1) < STRIDES[found.cells]
    assert (((centres > 12) & (centres < 36)).all(1) | near).all()
    others = iou(boxes[0], torch.tensor(face))
    others[found.cells] = 0
    assert torch.equal(found.punished[0], others < GOOD_OVERLAP)


def test_a_face_that_many_cells_box_well_takes_more_of_them() -> None:
    face = [[8.0, 8.0, 40.0, 40.0]]
    few = len(run(targets(face)).cells)
    boxes = torch.tensor(face).expand(1, CELLS, 4)
    assert few < len(run(targets(face), boxes).cells) == MOST_CELLS_PER_FACE


def test_of_cells_that_box_a_face_alike_those_that_score_it_are_taken() -> None:
    face = [[8.0, 8.0, 40.0, 40.0]]
    boxes = torch.tensor(face).expand(1, CELLS, 4)
    scores = torch.full((1, CELLS), 0.1)
    inside = ((PRIORS[:, :2] > 8) & (PRIORS[:, :2] < 40)).all(1).nonzero().squeeze(1)
    chosen = inside[::2][:MOST_CELLS_PER_FACE]
    scores[0, chosen] = 0.4
    found = run(targets(face), boxes, scores)
    assert set(chosen.tolist()) <= set(found.cells.tolist())


def test_a_tiny_face_between_the_cells_is_still_learnt() -> None:
    found = run(targets([[14.0, 14.0, 18.5, 18.5]]))
    assert len(found.cells)
    assert (STRIDES[found.cells] == 8).any()


def test_a_cell_that_two_faces_want_learns_the_one_that_it_boxes_best() -> None:
    faces = [[10.0, 10.0, 34.0, 34.0], [16.0, 16.0, 40.0, 40.0]]
    boxes = prior_corners()
    boxes[0, 27] = torch.tensor(faces[1])
    found = run(targets(faces), boxes)
    assert len(found.cells) == len(found.cells.unique())
    assert found.faces[found.cells == 27].tolist() == [1]
    assert set(found.faces.tolist()) == {0, 1}


def test_faces_are_learnt_in_their_own_picture() -> None:
    faces = [[4.0, 4.0, 28.0, 28.0], [30.0, 30.0, 60.0, 60.0]]
    found = run(targets(faces, owners=[1, 0], pictures=2), prior_corners(2))
    pictures = found.cells // CELLS
    assert (pictures[found.faces == 0] == 1).all()
    assert (pictures[found.faces == 1] == 0).all()
    assert set(found.faces.tolist()) == {0, 1}


def test_ignored_and_too_small_faces_are_neither_learnt_nor_punished() -> None:
    whole = [0.0, 0.0, 64.0, 64.0]
    face = [12.0, 12.0, 36.0, 36.0]
    found = run(targets([whole, face], ignored=[True, False]))
    assert set(found.faces.tolist()) == {1}
    assert found.punished.flatten()[found.cells].all()
    assert found.punished.sum() < CELLS / 2
    alone = run(targets([face], ignored=[True]))
    assert len(alone.cells) == 0
    assert 0 < alone.punished.sum() < CELLS
    small = [[16.0, 16.0, 40.0, 40.0]]
    hidden = run(targets(small), smallest=25.0)
    assert len(hidden.cells) == 0
    assert not hidden.punished.flatten()[27]


def outputs(margin: torch.Tensor, deltas: torch.Tensor, points: torch.Tensor) -> list[LevelOutput]:
    logits = torch.stack([torch.zeros_like(margin), margin], 2)
    cut = [64, 16]
    return [
        LevelOutput(*parts)
        for parts in zip(
            logits.split(cut, 1), deltas.split(cut, 1), points.split(cut, 1), strict=True
        )
    ]


def perfect(face: list[float], points: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Outputs of a net whose every cell boxes and marks one face exactly."""
    boxes = np.tile(np.array(face, np.float32), (CELLS, 1))
    deltas = torch.from_numpy(encode_boxes(PRIORS.numpy(), boxes, SPEC.variances))[None]
    offsets = (points[None] - PRIORS[:, None, :2]) / (PRIORS[:, None, 2:] * SPEC.variances[0])
    return torch.full((1, CELLS), -9.0), deltas, offsets.reshape(1, CELLS, 10)


def test_right_boxes_and_landmarks_cost_nothing_and_wrong_ones_by_the_faces_size() -> None:
    def losses(side: float, shift: float) -> dict[str, float]:
        face = [8.0, 8.0, 8 + side, 8 + side]
        points = 8 + side * torch.tensor(
            [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.3, 0.8], [0.7, 0.8]]
        )
        margin, deltas, offsets = perfect(face, points)
        wanted = targets([face], points=points[None] + shift * side)
        loss = aligned_loss(outputs(margin, deltas, offsets), SPEC, (SIDE, SIDE), wanted, RECIPE)
        terms = {name: value.item() for name, value in loss.terms.items()}
        total = terms["classes"] + 2 * terms["boxes"] + 2 * terms["landmarks"]
        assert loss.total.item() == pytest.approx(total, rel=1e-5)
        return terms

    assert losses(24, 0.0)["boxes"] == pytest.approx(0, abs=1e-4)
    assert losses(24, 0.0)["landmarks"] == pytest.approx(0, abs=1e-5)
    assert losses(24, 0.1)["landmarks"] == pytest.approx(0.1 - 0.025, rel=1e-3)
    assert losses(48, 0.1)["landmarks"] == pytest.approx(losses(24, 0.1)["landmarks"], rel=1e-3)


def test_pictures_without_faces_or_landmarks_have_finite_losses_and_gradients() -> None:
    for wanted in (targets([]), targets([[8.0, 8.0, 40.0, 40.0]])):
        margin = torch.zeros(1, CELLS, requires_grad=True)
        deltas = torch.zeros(1, CELLS, 4, requires_grad=True)
        points = torch.zeros(1, CELLS, 10, requires_grad=True)
        loss = aligned_loss(outputs(margin, deltas, points), SPEC, (SIDE, SIDE), wanted, RECIPE)
        loss.total.backward()
        assert loss.total.isfinite()
        for tensor in (margin, deltas, points):
            assert tensor.grad is not None
            assert tensor.grad.isfinite().all()
        assert loss.terms["landmarks"] == 0


def test_any_anchor_head_learns_by_it_and_others_say_why_not() -> None:
    retinaface = build("retinaface_mobilenet025:width=8")
    recipe = replace(choose_recipe("retinaface_mobilenet025", None), assignment="aligned")
    objective = build_objective(retinaface, recipe)
    wanted = targets([[8.0, 8.0, 40.0, 40.0]])
    loss = objective(retinaface, torch.rand(1, 3, SIDE, SIDE) * 255, wanted)
    loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in retinaface.parameters())
    with pytest.raises(TrainingError, match="one step of anchors"):
        build_objective(build("fanet_mobilenet025:width=8"), replace(recipe, supervision=()))
    with pytest.raises(
        TrainingError, match="no supervision beside assignment 'aligned', got dense"
    ):
        build_objective(retinaface, replace(recipe, supervision=(("dense", 0.01),)))
    with pytest.raises(TrainingError, match="assignment 'anchors' or 'aligned'"):
        Recipe("edgeface_nano", assignment="magic").check(32)
    with pytest.raises(TrainingError, match="optimizer 'sgd', 'adamw' or 'muon'"):
        Recipe("edgeface_nano", optimizer="magic").check(32)
