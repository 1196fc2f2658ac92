"""Augmentation, anchor matching and the loss, by hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgeface.anchors import AnchorLevel, AnchorSpec, prior_boxes
from edgeface.nets.heads.anchor import LevelOutput
from edgeface.postprocess import decode
from edgeface.training.augment import (
    FILL,
    Sample,
    anchor_sampling,
    close_up,
    crop,
    flip,
    mosaic,
    photometric,
    random_crop,
    zoom_out,
)
from edgeface.training.matching import IGNORED, NEGATIVE, POSITIVE, Matching, match
from edgeface.training.objectives import BatchTargets
from edgeface.training.objectives.retinaface import multitask_loss
from edgeface.training.recipe import Recipe

SPEC = AnchorSpec((AnchorLevel(8, (16.0, 32.0)), AnchorLevel(16, (64.0,))))
MARKS = np.array([[[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]]], np.float32)


def face_sample(box: tuple[float, float, float, float], size: int = 100) -> Sample:
    """A grey picture whose face is a ramp: every pixel tells where it was."""
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0] = np.arange(size)[None]
    image[..., 1] = np.arange(size)[:, None]
    boxes = np.array([box], np.float32)
    landmarks = boxes[:, None, :2] + MARKS * (boxes[:, None, 2:] - boxes[:, None, :2])
    return Sample(image, boxes, landmarks.astype(np.float32), np.zeros(1, bool))


def test_crop_moves_picture_box_and_landmarks_together() -> None:
    sample = crop(face_sample((20, 30, 60, 70)), 10, 10, 80, 160, 1)
    assert sample.image.shape == (160, 160, 3)
    np.testing.assert_allclose(sample.boxes, [[20, 40, 100, 120]])
    np.testing.assert_allclose(sample.landmarks[0, 0], [(20 + 0.3 * 40 - 10) * 2, 68])
    assert abs(int(sample.image[100, 60, 0]) - 40) <= 1
    assert abs(int(sample.image[100, 60, 1]) - 60) <= 1


def test_crop_fills_outside_and_ignores_a_face_that_the_edge_halves() -> None:
    sample = crop(face_sample((0, 40, 20, 60)), 11, 0, 100, 100, 1)
    assert sample.ignore.tolist() == [True]
    np.testing.assert_allclose(sample.boxes, [[0, 40, 9, 60]])
    np.testing.assert_array_equal(sample.image[50, 95], FILL)
    assert len(crop(face_sample((0, 40, 20, 60)), 30, 0, 70, 70, 1).boxes) == 0


def test_flip_swaps_left_and_right_landmarks() -> None:
    sample = face_sample((10, 20, 30, 50))
    once = flip(sample)
    np.testing.assert_allclose(once.boxes, [[70, 20, 90, 50]])
    assert once.landmarks[0, 0, 0] < once.landmarks[0, 1, 0]
    np.testing.assert_allclose(once.landmarks[0, 0], [100 - sample.landmarks[0, 1, 0], 30.5])
    twice = flip(once)
    np.testing.assert_array_equal(twice.image, sample.image)
    np.testing.assert_allclose(twice.landmarks, sample.landmarks, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_random_crops_keep_a_face_and_close_ups_fill_the_sample(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = face_sample((5, 70, 25, 95))
    assert (~random_crop(sample, 64, (0.3, 1.0), rng).ignore).any()
    near = close_up(sample, 0, 64, rng)
    assert 0.4 * 64 - 1 <= (near.boxes[0, 2:] - near.boxes[0, :2]).max() <= 65
    far = zoom_out(sample, 64, 2.0, rng)
    assert (far.boxes[0, 2:] - far.boxes[0, :2]).max() <= 25 * 0.64 + 1


def test_anchor_sampling_brings_a_face_near_an_anchor_and_seldom_enlarges_it() -> None:
    rng = np.random.default_rng(0)
    image = np.full((400, 400, 3), 90, np.uint8)
    box = np.array([[150, 150, 250, 250]], np.float32)
    sample = Sample(image, box, np.full((1, 5, 2), np.nan, np.float32), np.zeros(1, bool))
    sizes = []
    for _ in range(1000):
        got = anchor_sampling(sample, 0, 256, (16.0, 32.0, 64.0, 128.0, 256.0), rng)
        assert got.image.shape == (256, 256, 3)
        assert len(got.boxes) == 1 and not got.ignore[0]
        sizes.append(float((got.boxes[0, 2:] - got.boxes[0, :2]).max()))
    # The face of 100 is nearest to 128: anchors 16 to 256 are drawn alike, each from half to twice.
    drawn = np.histogram(sizes, [7.9, 32, 64, 128, 257])[0] / 1000
    expected = np.array([4 / 3, 1, 1, 5 / 3]) / 5
    np.testing.assert_allclose(drawn, expected, atol=0.05)
    assert 7.9 < min(sizes) < 12 and max(sizes) > 250


def test_mosaic_places_each_picture_in_its_tile() -> None:
    rng = np.random.default_rng(3)
    samples = [face_sample((40, 40, 60, 60)) for _ in range(4)]
    sample = mosaic(samples, 128, rng)
    assert sample.image.shape == (128, 128, 3)
    assert len(sample.boxes) == len(sample.landmarks) == len(sample.ignore)
    assert (sample.boxes >= 0).all()
    assert (sample.boxes <= 128).all()
    kept = ~sample.ignore
    nose = sample.landmarks[kept, 2]
    middle = (sample.boxes[kept, :2] + sample.boxes[kept, 2:]) / 2
    assert len(nose) >= 1
    sides = sample.boxes[kept, 2:] - sample.boxes[kept, :2]
    whole = np.abs(sides[:, 0] - sides[:, 1]) < 1
    np.testing.assert_allclose(nose[whole, 0], middle[whole, 0], atol=1.5)


def test_photometric_keeps_shape_and_dtype_and_changes_pixels() -> None:
    image = face_sample((5, 5, 50, 50)).image
    before = image.copy()
    changed = [photometric(image, np.random.default_rng(seed)) for seed in range(20)]
    assert all(out.shape == image.shape and out.dtype == np.uint8 for out in changed)
    assert sum((out != image).any() for out in changed) == 20
    np.testing.assert_array_equal(image, before)


def targets_of(boxes, ignore=None, rules=Matching(0.35, 0.3)):  # noqa: B008
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    landmarks = boxes[:, None, :2] + MARKS * (boxes[:, None, 2:] - boxes[:, None, :2])
    ignore = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore)
    priors = prior_boxes(SPEC, 64, 64)
    return priors, match(priors, SPEC.variances, boxes, landmarks, ignore, rules)


def test_an_anchor_on_a_face_is_positive_and_decodes_to_it() -> None:
    box = (12, 20, 30, 37)
    priors, targets = targets_of([box])
    assert len(targets.index) > 0
    offsets = np.concatenate([targets.deltas, targets.landmarks], 1)
    points = decode(offsets, priors[targets.index], SPEC.variances)
    boxes = points[:, :2].reshape(-1, 4)
    np.testing.assert_allclose(boxes, np.tile(box, (len(boxes), 1)), atol=1e-3)
    np.testing.assert_allclose(points[0, 2 + 2], [12 + 0.5 * 18, 20 + 0.55 * 17], atol=1e-3)
    assert (targets.labels[targets.index] == POSITIVE).all()
    assert (targets.labels == NEGATIVE).sum() > 50


def test_a_tiny_face_takes_its_best_anchor_and_a_hopeless_one_is_ignored() -> None:
    _, targets = targets_of([(33, 33, 38, 38)])
    assert len(targets.index) == 1
    _, targets = targets_of([(33, 33, 36.5, 36.5)], rules=Matching(0.35, 0.3, smallest=4))
    assert len(targets.index) == 0
    _, targets = targets_of([(33, 33, 38, 38)], rules=Matching(0.35, 0.3, forced=0.5))
    assert len(targets.index) == 0


def test_two_faces_never_lose_their_best_anchor_to_each_other() -> None:
    _, targets = targets_of([(2, 2, 10, 10), (18, 2, 34, 18), (20, 4, 36, 20)])
    assert len({tuple(np.round(delta, 3)) for delta in targets.deltas}) == len(targets.deltas)
    assert len(targets.index) >= 3


def test_ignored_faces_are_neither_learnt_nor_punished() -> None:
    priors, targets = targets_of([(0, 0, 64, 64)], ignore=[True])
    assert len(targets.index) == 0
    inside = (priors[:, 2] < 33) & (np.abs(priors[:, :2] - 32) < 20).all(1)
    assert (targets.labels[inside] == IGNORED).all()
    _, empty = targets_of([])
    assert (empty.labels == NEGATIVE).all()


def outputs_of(margins: list[float]) -> list[LevelOutput]:
    logits = torch.tensor([[[0.0, margin] for margin in margins]], requires_grad=True)
    count = len(margins)
    return [LevelOutput(logits, torch.zeros(1, count, 4), torch.zeros(1, count, 10))]


def batch_targets(labels: list[int]) -> BatchTargets:
    positives = torch.tensor([i for i, v in enumerate(labels) if v == 1], dtype=torch.int64)
    landmarks = torch.full((len(positives), 10), math.nan)
    if len(positives):
        landmarks[0] = 2.0
    return BatchTargets(
        torch.tensor([labels], dtype=torch.int8),
        positives,
        torch.ones(len(positives), 4),
        landmarks,
        torch.zeros(0, 4),
        torch.zeros(0, 5, 2),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, dtype=torch.bool),
    )


def test_loss_values_by_hand() -> None:
    outputs = outputs_of([1.0, 2.0, -1.0, 3.0, 0.5])
    losses = multitask_loss(
        outputs,
        batch_targets([1, 0, 0, -1, 1]),
        Recipe("", negatives_per_positive=0.5),
    )
    positive = math.log1p(math.exp(-1.0)) + math.log1p(math.exp(-0.5))
    hardest = math.log1p(math.exp(2.0))
    assert losses.terms["classes"].item() == pytest.approx((positive + hardest) / 2)
    assert losses.terms["boxes"].item() == pytest.approx(4 * 0.5)
    assert losses.terms["landmarks"].item() == pytest.approx(10 * 1.5)
    expected = sum(
        weight * losses.terms[name]
        for name, weight in (("classes", 1), ("boxes", 0.25), ("landmarks", 0.1))
    )
    assert losses.total.item() == pytest.approx(expected.item())


def test_only_positives_and_hard_negatives_get_a_gradient() -> None:
    outputs = outputs_of([1.0, 2.0, -1.0, 3.0, 0.5])
    losses = multitask_loss(
        outputs,
        batch_targets([1, 0, 0, -1, 0]),
        Recipe("", negatives_per_positive=2),
    )
    losses.total.backward()
    gradient = outputs[0].logits.grad
    assert gradient is not None
    assert (gradient[0].abs().sum(1) > 0).tolist() == [True, True, False, False, True]


def test_a_batch_without_faces_still_teaches_its_hardest_negative() -> None:
    losses = multitask_loss(
        outputs_of([1.0, -1.0]),
        batch_targets([0, 0]),
        Recipe("", negatives_per_positive=3),
    )
    assert losses.total.item() == pytest.approx(math.log1p(math.e))
