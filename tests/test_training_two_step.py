"""What RefineFace and ISRN learn from, against their equations and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeface.anchors import AnchorSpec, prior_boxes
from edgeface.training import matching

torch = pytest.importorskip("torch")

from edgeface.nets import build  # noqa: E402
from edgeface.nets.presets.refineface import TWO_STEP_ANCHORS  # noqa: E402
from edgeface.training.matching import IGNORED, NEGATIVE, POSITIVE, Matching  # noqa: E402
from edgeface.training.objectives import BatchTargets, build_objective  # noqa: E402
from edgeface.training.objectives.feature_supervision import (  # noqa: E402
    BINS,
    FeatureSupervision,
    align,
    label,
    nearest_level,
    propose,
)
from edgeface.training.objectives.roi_align import roi_align  # noqa: E402
from edgeface.training.objectives.second_matching import corners, match  # noqa: E402
from edgeface.training.objectives.two_step import (  # noqa: E402
    Outputs,
    box_loss,
    first_box_loss,
    landmark_loss,
    match_second_step,
    refine,
    regular_anchors,
    with_margin,
)
from edgeface.training.recipe import Recipe  # noqa: E402

SMALL = "refineface_mobilenet025:width=16"
SIDE = 128
RULES = Matching(positive=0.5, negative=0.4)


def make_recipe(preset: str = SMALL, **fields: object) -> Recipe:
    first = Matching(positive=0.7, negative=0.3)
    return Recipe(
        preset,
        classification="focal",
        matching=first,
        second_matching=RULES,
        box_weight=1.0,
        **fields,
    )


def scene(samples: int = 2, faces: int = 4, seed: int = 0) -> BatchTargets:
    """Faces 11 to 90 pixels high in samples of 128; the second of each sample is ignored."""
    rng = np.random.default_rng(seed)
    priors = prior_boxes(TWO_STEP_ANCHORS, SIDE, SIDE)
    columns: list[list[np.ndarray]] = [[] for _ in range(8)]
    for sample in range(samples):
        widths = np.geomspace(9, 72, faces)[:, None]
        sizes = widths * [1, 1.25]
        corner = rng.uniform(0, 1, (faces, 2)) * (SIDE - sizes)
        boxes = np.concatenate([corner, corner + sizes], 1).astype(np.float32)
        points = (boxes[:, None, :2] + rng.uniform(0, 1, (faces, 5, 2)) * sizes[:, None]).astype(
            np.float32
        )
        points[0] = np.nan
        ignored = np.arange(faces) == 1
        rules = make_recipe().matching
        targets = matching.match(priors, (0.1, 0.2), boxes, points, ignored.copy(), rules)
        values = (
            targets.labels[None], targets.index + sample * len(priors), targets.deltas,
            targets.landmarks, boxes, points, np.full(faces, sample), ignored,
        )  # fmt: skip
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return BatchTargets(*(torch.from_numpy(np.concatenate(column)) for column in columns))


def outputs_of(logit: float, first_logit: float, samples: int = 2) -> Outputs:
    counts = [
        len(prior_boxes(AnchorSpec((level,)), SIDE, SIDE)) for level in TWO_STEP_ANCHORS.levels
    ]
    total, fine, coarse = sum(counts), sum(counts[:3]), sum(counts[3:])
    return Outputs(
        torch.full((samples, total), logit),
        torch.zeros(samples, total, 4),
        torch.zeros(samples, total, 10),
        torch.full((samples, fine), first_logit),
        torch.zeros(samples, coarse, 4),
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_second_matching_is_the_first_one_in_torch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    priors = prior_boxes(TWO_STEP_ANCHORS, SIDE, SIDE)
    count = [0, 1, 5, 12][seed % 4]
    start = rng.uniform(-5, 110, (count, 2))
    boxes = np.concatenate([start, start + rng.uniform(2, 90, (count, 2))], 1).astype(np.float32)
    ignored = rng.random(count) < 0.3
    points = np.zeros((count, 5, 2), np.float32)
    expected = matching.match(priors, (0.1, 0.2), boxes, points, ignored.copy(), RULES)
    got = match(
        torch.from_numpy(matching.corners(priors)), torch.from_numpy(boxes),
        torch.from_numpy(ignored), RULES,
    )  # fmt: skip
    np.testing.assert_array_equal(got.labels.numpy(), expected.labels)
    chosen = got.faces.numpy()[expected.index]
    wanted = matching.encode_boxes(priors[expected.index], boxes[chosen], (0.1, 0.2))
    np.testing.assert_allclose(wanted, expected.deltas, atol=1e-5)


def test_the_margin_by_hand() -> None:
    anchors = torch.tensor([[0, 0, 8, 8], [0, 0, 6, 37.5], [0, 0, 60, 60], [0, 0, 8, 8.0]])
    labels = torch.tensor([[POSITIVE, POSITIVE, POSITIVE, NEGATIVE]], dtype=torch.int8)
    logits = torch.tensor([[2.0, 2.0, 2.0, 2.0]])
    got = with_margin(logits, labels, anchors, 15.0)
    assert got.tolist()[0] == pytest.approx([2 - 15 / 8, 2 - 1, 2 - 0.25, 2])
    assert got.sigmoid()[0, 0].item() == pytest.approx(1 / (1 + math.exp(-0.125)))
    assert with_margin(logits, labels, anchors, 0.0).tolist() == logits.tolist()


def test_the_first_step_raises_the_share_of_positives_in_the_second() -> None:
    targets = scene()
    outputs = outputs_of(0.0, -6.0)
    anchors = regular_anchors(TWO_STEP_ANCHORS, torch.empty(2, 3, SIDE, SIDE))
    refined = refine(anchors.priors, outputs.first_deltas, (0.1, 0.2))
    # The first step is sure of background everywhere but around the faces.
    near = corners(anchors.priors)[None, : outputs.first_logits.shape[1]]
    for sample, face in zip(targets.owners, targets.faces, strict=True):
        inside = (near[0, :, :2] < face[2:]).all(1) & (near[0, :, 2:] > face[:2]).all(1)
        outputs.first_logits[sample, inside] = 0.0
    kept_all = outputs._replace(first_logits=torch.zeros_like(outputs.first_logits))
    before = match_second_step(kept_all, anchors, refined, targets, make_recipe()).labels
    after = match_second_step(outputs, anchors, refined, targets, make_recipe()).labels

    def ratio(labels: torch.Tensor) -> float:
        return float((labels == POSITIVE).sum() / (labels == NEGATIVE).sum())

    assert (before == POSITIVE).sum() == (after == POSITIVE).sum() > 0
    rejected = outputs.first_logits < math.log(0.01 / 0.99)
    assert (after[:, : rejected.shape[1]][rejected] == IGNORED).all()
    dropped = int((rejected & (before[:, : rejected.shape[1]] == NEGATIVE)).sum())
    assert int((before == NEGATIVE).sum() - (after == NEGATIVE).sum()) == dropped
    assert ratio(after) > 1.5 * ratio(before)


def test_what_the_first_step_rejects_gets_no_gradient_from_the_second() -> None:
    net = build(SMALL)
    recipe = make_recipe(supervision=(("fsm", 0.0), ("sml", 0.0)))
    objective = build_objective(net, recipe)
    levels = net.train().training_outputs(torch.rand(2, 3, SIDE, SIDE) * 255).head
    logits, first = levels[0].logits, levels[0].first_logits
    rejected = torch.zeros_like(first, dtype=torch.bool)
    rejected[:, ::2] = True
    levels[0] = levels[0]._replace(
        logits=logits.detach().requires_grad_(),
        first_logits=torch.where(rejected, -9.0, 0.0).requires_grad_(),
    )
    net.training_outputs = lambda _images: (None, levels)
    losses = objective(net, torch.zeros(2, 3, SIDE, SIDE), scene())
    losses.total.backward()
    second, once = levels[0].logits.grad, levels[0].first_logits.grad
    assert (second[rejected] == 0).all() and (second[~rejected] != 0).float().mean() > 0.9
    assert (once[rejected] != 0).float().mean() > 0.9


def test_the_second_step_regresses_from_where_the_first_one_ended() -> None:
    targets = scene(samples=1)
    anchors = regular_anchors(TWO_STEP_ANCHORS, torch.empty(1, 3, SIDE, SIDE))
    outputs = outputs_of(0.0, 0.0, samples=1)
    outputs.first_deltas.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    refined = refine(anchors.priors, outputs.first_deltas, (0.1, 0.2))
    step = match_second_step(outputs, anchors, refined, targets, make_recipe())
    coarse = step.places >= len(anchors.priors) - outputs.first_deltas.shape[1]
    assert coarse.any() and (~coarse).any()
    assert not torch.equal(step.anchors[coarse], step.priors[coarse])
    assert torch.equal(step.anchors[~coarse], step.priors[~coarse])
    faces = targets.faces[step.faces]
    centres, sizes = (faces[:, :2] + faces[:, 2:]) / 2, faces[:, 2:] - faces[:, :2]
    deltas = torch.cat(
        [(centres - step.anchors[:, :2]) / (0.1 * step.anchors[:, 2:]),
         (sizes / step.anchors[:, 2:]).log() / 0.2], 1
    )  # fmt: skip
    outputs.deltas[step.owners, step.places] = deltas
    assert box_loss(outputs, step, targets, (0.1, 0.2)).item() < 1e-6
    outputs.deltas[step.owners, step.places] += 2.0
    assert box_loss(outputs, step, targets, (0.1, 0.2)).item() == pytest.approx(4 * 1.5, rel=1e-4)
    points = targets.points[step.faces]
    wanted = (points - step.priors[:, None, :2]) / (0.1 * step.priors[:, None, 2:])
    outputs.landmarks[step.owners, step.places] = wanted.flatten(1).nan_to_num(1e3)
    assert landmark_loss(outputs, step, targets, (0.1, 0.2)).item() < 1e-4


def test_the_first_regression_learns_the_coarse_levels_alone() -> None:
    targets, outputs = scene(), outputs_of(0.0, 0.0)
    total, fine = outputs.logits.shape[1], outputs.first_logits.shape[1]
    coarse = targets.positives % total >= fine
    assert coarse.any() and (~coarse).any()
    owners, index = targets.positives[coarse] // total, targets.positives[coarse] % total - fine
    assert first_box_loss(outputs, targets).item() > 0.1
    outputs.first_deltas[owners, index] = targets.deltas[coarse]
    assert first_box_loss(outputs, targets).item() < 1e-6


def brute_force(level: np.ndarray, box: np.ndarray, stride: int, bins: int) -> np.ndarray:
    """RoIAlign by loops: 2 x 2 bilinear samples per bin, cell i's centre at (i + 0.5) * stride."""
    _, height, width = level.shape
    x1, y1, x2, y2 = box / stride
    result = np.zeros((len(level), bins, bins))
    for row in range(bins):
        for column in range(bins):
            for a in (0.25, 0.75):
                for b in (0.25, 0.75):
                    y = np.clip(y1 + (row + a) * (y2 - y1) / bins - 0.5, 0, height - 1)
                    x = np.clip(x1 + (column + b) * (x2 - x1) / bins - 0.5, 0, width - 1)
                    v, u = int(y), int(x)
                    v2, u2 = min(v + 1, height - 1), min(u + 1, width - 1)
                    dy, dx = y - v, x - u
                    result[:, row, column] += (
                        level[:, v, u] * (1 - dy) * (1 - dx) + level[:, v, u2] * (1 - dy) * dx
                        + level[:, v2, u] * dy * (1 - dx) + level[:, v2, u2] * dy * dx
                    ) / 4  # fmt: skip
    return result


def test_roi_align_equals_the_loops() -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(size=(3, 4, 9, 13)).astype(np.float32)
    corner = rng.uniform(0, [80, 50], (7, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(3, 24, (7, 2))], 1).astype(np.float32)
    boxes[0] = [-6, -4, 20, 30]  # beyond the border
    owners = np.array([2, 0, 0, 2, 0, 2, 2])
    got = roi_align(
        torch.from_numpy(level), torch.from_numpy(boxes), torch.from_numpy(owners), 8, 5
    ).numpy()
    for number, (box, owner) in enumerate(zip(boxes, owners, strict=True)):
        expected = brute_force(level[owner], box, 8, 5)
        np.testing.assert_allclose(got[number], expected, atol=1e-5)


def test_roi_align_of_no_boxes_and_its_gradient() -> None:
    level = torch.rand(2, 3, 4, 4, requires_grad=True)
    none = roi_align(level, torch.empty(0, 4), torch.empty(0, dtype=torch.int64), 4, 5)
    assert none.shape == (0, 3, 5, 5)
    one = roi_align(level, torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([1]), 4, 5)
    one.sum().backward()
    assert level.grad[0].abs().sum() == 0
    assert level.grad[1].sum().item() == pytest.approx(3 * 25, rel=1e-5)


def test_feature_supervision_has_the_papers_weights() -> None:
    module = FeatureSupervision(256)
    assert sum(parameter.numel() for parameter in module.parameters()) == 387_360
    kernels = [m.kernel_size for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [(3, 3)] * 4
    assert module(torch.rand(6, 256, BINS, BINS)).shape == (6,)


def test_proposals_are_the_faces_and_512_in_all_each_from_its_level() -> None:
    targets = scene()
    anchors = regular_anchors(TWO_STEP_ANCHORS, torch.empty(2, 3, SIDE, SIDE))
    logits = torch.randn(2, len(anchors.priors), generator=torch.Generator().manual_seed(0))
    every = corners(anchors.priors).expand(2, -1, -1)
    boxes, owners, levels = propose(logits, every, anchors.levels, targets, TWO_STEP_ANCHORS)
    learnt = targets.faces[~targets.ignored]
    assert torch.equal(boxes[: len(learnt)], learnt)
    assert len(boxes) == len(owners) == len(levels) <= 512
    found = boxes[len(learnt) :]
    assert torch.equal(nearest_level(found, TWO_STEP_ANCHORS), levels[len(learnt) :])
    labels = label(boxes, owners, targets, RULES)
    assert (labels[: len(learnt)] == POSITIVE).all()
    assert (labels == NEGATIVE).any()
    maps = [torch.rand(2, 8, -(-SIDE // n.stride), -(-SIDE // n.stride)) for n in
            TWO_STEP_ANCHORS.levels]  # fmt: skip
    regions = align(maps, TWO_STEP_ANCHORS, boxes, owners, levels)
    number = len(boxes) - 1
    level = int(levels[number])
    stride = TWO_STEP_ANCHORS.levels[level].stride
    expected = brute_force(maps[level][owners[number]].numpy(), boxes[number].numpy(), stride, BINS)
    np.testing.assert_allclose(regions[number].numpy(), expected, atol=1e-5)


def test_proposal_labels_by_iou() -> None:
    faces = torch.tensor([[0, 0, 100, 100], [200, 200, 240, 240.0]])
    targets = scene()._replace(
        faces=faces, owners=torch.tensor([0, 0]), ignored=torch.tensor([False, True])
    )
    boxes = torch.tensor(
        [[0, 0, 100, 71], [0, 0, 100, 69], [0, 0, 100, 41], [0, 0, 100, 39], [205, 205, 235, 235],
         [0, 0, 100, 100.0]]
    )  # fmt: skip
    owners = torch.tensor([0, 0, 0, 0, 0, 1])
    expected = [POSITIVE, IGNORED, IGNORED, NEGATIVE, IGNORED, NEGATIVE]
    assert label(boxes, owners, targets, RULES).tolist() == expected


@pytest.mark.parametrize(
    ("preset", "supervision", "terms"),
    [
        (SMALL, (), {"classes", "boxes", "landmarks", "first_classes", "first_boxes", "fsm"}),
        (
            SMALL + ",stc=off,str=off,rfe=off",
            (("sml", 0.0), ("fsm", 0.0)),
            {"classes", "boxes", "landmarks"},
        ),
        (
            "isrn_mobilenet025:width=16",
            (("segmentation", 0.05),),
            {"classes", "boxes", "landmarks", "first_classes", "first_boxes", "segmentation"},
        ),
    ],
)
def test_every_switch_trains_and_every_weight_gets_a_gradient(
    preset: str, supervision: tuple[tuple[str, float], ...], terms: set[str]
) -> None:
    torch.manual_seed(0)
    net = build(preset).train()
    objective = build_objective(net, make_recipe(preset, supervision=supervision))
    losses = objective(net, torch.rand(2, 3, SIDE, SIDE) * 255, scene())
    assert set(losses.terms) == terms
    losses.total.backward()
    for module in (net, objective):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_training_modules_are_no_part_of_the_net() -> None:
    net = build(SMALL)
    before = set(net.state_dict())
    objective = build_objective(net, make_recipe())
    assert set(net.state_dict()) == before
    assert any("supervision" in name for name in objective.state_dict())


def test_a_batch_without_faces_has_finite_losses() -> None:
    net = build(SMALL).train()
    empty = BatchTargets(
        torch.zeros(2, len(prior_boxes(TWO_STEP_ANCHORS, SIDE, SIDE)), dtype=torch.int8),
        torch.empty(0, dtype=torch.int64), torch.empty(0, 4), torch.empty(0, 10),
        torch.empty(0, 4), torch.empty(0, 5, 2), torch.empty(0, dtype=torch.int64),
        torch.empty(0, dtype=torch.bool),
    )  # fmt: skip
    losses = build_objective(net, make_recipe())(net, torch.rand(2, 3, SIDE, SIDE) * 255, empty)
    losses.total.backward()
    assert losses.total.isfinite() and losses.terms["boxes"] == 0
