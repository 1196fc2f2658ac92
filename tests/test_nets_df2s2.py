"""DF2S2 against its paper: fusion, anchors, masks per level, losses, and what is left to deploy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeface.anchors import AnchorLevel, AnchorSpec, level_priors, prior_boxes

torch = pytest.importorskip("torch")

from edgeface.nets import build  # noqa: E402
from edgeface.nets.backbones import Stage  # noqa: E402
from edgeface.nets.heads.anchor import LevelOutput  # noqa: E402
from edgeface.nets.heads.tower import TowerHead  # noqa: E402
from edgeface.nets.necks.fusion import FusionBlock, FusionPyramid, PooledLevels  # noqa: E402
from edgeface.nets.presets.df2s2 import ANCHORS  # noqa: E402
from edgeface.training.objectives import BatchTargets, build_objective  # noqa: E402
from edgeface.training.objectives.df2s2 import detection_loss, segmentation_loss  # noqa: E402
from edgeface.training.objectives.segmentation import box_masks, level_of_faces  # noqa: E402
from edgeface.training.recipe import Recipe  # noqa: E402

PRESET = "df2s2_mobilenet025"
FOCAL = Recipe(PRESET, classification="focal", box_weight=1.0)
# One preset at 128 x 128: cells of its levels.
CELLS = (32, 16, 8, 4, 2, 1)


def faces_of(
    boxes: list[tuple[float, float, float, float]],
    owners: list[int] | None = None,
    ignored: list[bool] | None = None,
    labels: torch.Tensor | None = None,
) -> BatchTargets:
    """Targets of faces alone, or with the labels of anchors whose deltas are all 1."""
    labels = torch.zeros(1, 0, dtype=torch.int8) if labels is None else labels
    positives = (labels == 1).flatten().nonzero().squeeze(1)
    return BatchTargets(
        labels,
        positives,
        torch.ones(len(positives), 4),
        torch.full((len(positives), 10), math.nan),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.zeros(len(boxes), 5, 2),
        torch.tensor(owners or [0] * len(boxes), dtype=torch.int64),
        torch.tensor(ignored or [False] * len(boxes)),
    )


def test_fusion_block_multiplies_by_the_transposed_convolution_and_adds() -> None:
    block = FusionBlock(1, 2)
    with torch.no_grad():
        block.transform.weight.zero_()
        block.transform.weight[0, 0] = torch.tensor([[1.0, 2], [3, 4]])
        block.transform.weight[1, 0] = torch.tensor([[0.0, 0], [0, 10]])
        block.transform.bias.fill_(0.5)
    deep = torch.tensor([[[[1.0, -1]], [[2.0, 0]]]])
    shallow = torch.tensor([[[[1.0, 2, 3, 4], [5, 6, 7, 8]]]])
    weights = torch.tensor([[1.5, 2.5, -0.5, -1.5], [3.5, 24.5, -2.5, -3.5]])
    torch.testing.assert_close(block(shallow, deep)[0, 0], shallow[0, 0] * weights + shallow[0, 0])


def test_fusion_runs_from_top_to_bottom_and_keeps_sizes_and_channels() -> None:
    pyramid = FusionPyramid([Stage(2, 4), Stage(3, 8), Stage(4, 16)])
    features = [torch.rand(1, 2, 8, 12), torch.rand(1, 3, 4, 6), torch.rand(1, 4, 2, 3)]
    fine, middle, coarse = pyramid(features)
    assert [level.shape for level in (fine, middle, coarse)] == [one.shape for one in features]
    assert coarse is features[2]
    torch.testing.assert_close(middle, pyramid.blocks[1](features[1], coarse))
    torch.testing.assert_close(fine, pyramid.blocks[0](features[0], middle))


def test_two_pooled_levels_hold_the_maxima() -> None:
    level = torch.arange(16.0).reshape(1, 1, 4, 4)
    first, half, quarter = PooledLevels(2)([level])
    assert first is level
    assert half[0, 0].tolist() == [[5, 7], [13, 15]]
    assert quarter[0, 0].tolist() == [[15]]


def test_two_anchors_per_cell_of_four_strides() -> None:
    """The paper's A = 6 would make 204,750 anchors; its one size and two ratios make 68,250."""
    cells = sum((640 // level.stride) ** 2 for level in ANCHORS.levels)
    assert cells == 34_125
    assert len(prior_boxes(ANCHORS, 640, 640)) == 2 * cells == 68_250
    for level in ANCHORS.levels:
        square, tall = level_priors(level, 128, 128)[:2, 2:]
        assert square.tolist() == [4 * level.stride, 4 * level.stride]
        assert tall[1] / tall[0] == pytest.approx(1.5)
        assert tall[0] * tall[1] == pytest.approx(16 * level.stride**2)


def test_all_levels_and_tasks_share_one_tower() -> None:
    head = TowerHead(8, 2)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in head.tower) == 4
    outputs, towers = head.training_outputs([torch.rand(1, 8, 4, 4), torch.rand(1, 8, 2, 2)])
    assert [tower.shape[1:] for tower in towers] == [(8, 4, 4), (8, 2, 2)]
    assert [level.logits.shape for level in outputs] == [(1, 32, 1), (1, 8, 1)]
    assert [level.landmarks.shape for level in outputs] == [(1, 32, 10), (1, 8, 10)]
    start = torch.sigmoid(torch.cat([level.logits.flatten() for level in outputs])).median()
    assert 0.001 < start < 0.1


@pytest.mark.parametrize(
    ("side", "level"),
    [(3, 0), (16, 0), (22.6, 0), (22.7, 1), (32, 1), (45.3, 2), (64, 2), (128, 3), (256, 4),
     (362, 4), (363, 5), (512, 5), (2000, 5)],
)  # fmt: skip
def test_a_face_belongs_to_the_level_whose_anchor_is_nearest(side: float, level: int) -> None:
    square = torch.tensor([[10.0, 10, 10 + side, 10 + side]])
    tall = torch.tensor([[0.0, 0, side / 2, side * 2]])
    assert level_of_faces(square, ANCHORS).tolist() == [level]
    assert level_of_faces(tall, ANCHORS).tolist() == [level]


def test_masks_are_boxes_on_the_level_of_their_face() -> None:
    shapes = [torch.Size((2, cells, cells)) for cells in CELLS]
    boxes = [(8.0, 12.0, 24.0, 24.0), (40.0, 40.0, 80.0, 72.0), (71.0, 73.0, 74.0, 77.0)]
    masks = box_masks(faces_of(boxes, owners=[0, 1, 1]), ANCHORS, shapes, smallest=4)
    fine = torch.zeros(2, 32, 32, dtype=torch.int8)
    fine[0, 3:6, 2:6] = 1
    fine[1, 18, 18] = 1
    torch.testing.assert_close(masks[0], fine)
    middle = torch.zeros(2, 16, 16, dtype=torch.int8)
    middle[1, 5:9, 5:10] = 1
    torch.testing.assert_close(masks[1], middle)
    assert all(not mask.any() for mask in masks[2:])


def test_ignored_and_too_small_faces_are_ignored_on_every_level() -> None:
    shapes = [torch.Size((1, cells, cells)) for cells in CELLS]
    boxes = [(0.0, 0.0, 64.0, 64.0), (90.0, 90.0, 93.0, 93.0), (8.0, 8.0, 24.0, 24.0)]
    targets = faces_of(boxes, ignored=[True, False, False])
    masks = box_masks(targets, ANCHORS, shapes, smallest=4)
    assert (masks[0][0, :16, :16] == -1).sum() == 16 * 16 - 4 * 4
    assert (masks[0][0, 2:6, 2:6] == 1).all()
    assert masks[0][0, 22, 22] == -1
    assert (masks[0] == 0).sum() == 32 * 32 - 16 * 16 - 1
    assert masks[2][0, :4, :4].tolist() == [[-1] * 4] * 4
    assert (masks[2] == 1).sum() == 0


def test_segmentation_loss_by_hand() -> None:
    targets = faces_of([(8.0, 8.0, 24.0, 24.0)])
    masks = [torch.zeros(1, cells, cells, requires_grad=True) for cells in CELLS]
    loss = segmentation_loss(masks, targets, ANCHORS, smallest=4)
    assert loss.item() == pytest.approx(6 * math.log(2))
    loss.backward()
    assert masks[0].grad is not None
    face, background = masks[0].grad[0, 3, 3].item(), masks[0].grad[0, 20, 20].item()
    assert (face, background) == pytest.approx((-0.5 / 1024, 0.5 / 1024))
    everywhere = faces_of([(0.0, 0.0, 128.0, 128.0)], ignored=[True])
    assert segmentation_loss(masks, everywhere, ANCHORS, smallest=4).item() == 0


def test_detection_loss_is_averaged_on_each_level() -> None:
    labels = torch.tensor([[1, 0, -1, 1, 1, 0]], dtype=torch.int8)
    logits = [[1.0, -2, 3, 0.5], [-1, -3]]
    outputs = [
        LevelOutput(
            torch.tensor(level).reshape(1, -1, 1),
            torch.zeros(1, len(level), 4),
            torch.zeros(1, len(level), 10),
        )
        for level in logits
    ]

    def focal(logit: float, face: bool) -> float:
        right = 1 / (1 + math.exp(-logit if face else logit))
        return -(0.25 if face else 0.75) * (1 - right) ** 2 * math.log(right)

    losses = detection_loss(outputs, faces_of([], labels=labels), FOCAL)
    first = (focal(1, True) + focal(-2, False) + focal(0.5, True)) / 2
    second = focal(-1, True) + focal(-3, False)
    assert losses.terms["classes"].item() == pytest.approx(first + second)
    assert losses.terms["boxes"].item() == pytest.approx(2 * 4 * 0.5)
    assert losses.total.item() == pytest.approx(first + second + 4)
    alone = detection_loss(outputs, faces_of([], labels=labels * 0), FOCAL)
    assert alone.total.item() == pytest.approx(
        sum(focal(logit, False) for level in logits for logit in level)
    )


def batch_of(side: int = 128) -> tuple[torch.Tensor, BatchTargets]:
    torch.manual_seed(1)
    anchors = len(prior_boxes(ANCHORS, side, side))
    labels = torch.zeros(1, anchors, dtype=torch.int8)
    labels[0, ::500] = 1
    return torch.rand(1, 3, side, side) * 255, faces_of([(8.0, 8.0, 40.0, 44.0)], labels=labels)


def test_segmentation_weighs_a_twentieth_and_teaches_the_shared_tower() -> None:
    torch.manual_seed(0)
    net = build(PRESET).eval()
    objective = build_objective(net, FOCAL)
    images, targets = batch_of()
    losses = objective(net, images, targets)
    plain = build_objective(net, Recipe(**{**vars(FOCAL), "supervision": (("segmentation", 0.0),)}))
    without = plain(net, images, targets)
    assert not list(plain.parameters())
    assert "segmentation" not in without.terms
    expected = without.total + 0.05 * losses.terms["segmentation"]
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)

    masks = objective.segmentation(net.training_outputs(images).head.towers)
    segmentation_loss(masks, targets, ANCHORS, smallest=4).backward()
    assert net.head.tower[0].weight.grad.abs().sum() > 0
    assert net.neck[0].blocks[0].transform.weight.grad.abs().sum() > 0
    assert net.head.classes.weight.grad is None


@pytest.mark.parametrize("preset", [PRESET, "df2s2_resnet18", f"{PRESET}:fusion=off"])
def test_outputs_fit_the_anchors(preset: str) -> None:
    net = build(preset).eval()
    with torch.no_grad():
        outputs = net(torch.zeros(1, 3, 128, 256))
    priors = [len(level_priors(level, 128, 256)) for level in net.anchors.levels]
    assert [level.logits.shape[1] for level in outputs] == priors


def test_width_reaches_the_papers() -> None:
    head = build("df2s2_resnet18:width=256").head
    assert [layer.weight.shape for layer in head.tower[::2]] == [(256, 256, 3, 3)] * 4


def test_levels_of_a_spec_with_other_sizes_follow_it() -> None:
    anchors = AnchorSpec((AnchorLevel(8, (10.0,)), AnchorLevel(16, (20.0,))))
    faces = torch.tensor([[0.0, 0, 14, 14], [0, 0, 15, 15]])
    np.testing.assert_array_equal(level_of_faces(faces, anchors), [0, 1])
