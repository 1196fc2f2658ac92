"""Scores of small and large faces on one scale: what is chosen, and that it folds exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.cli.main import main
from edgeface.errors import TrainingError
from edgeface.faces import DEFAULT_SCORE_THRESHOLD
from edgeface.imageio import read_image
from edgeface.postprocess import sigmoid

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from edgeface.evaluation.wider import SUBSETS, WiderImage  # noqa: E402
from edgeface.nets import build  # noqa: E402
from edgeface.nets.weights import load_weights, read_state_dict  # noqa: E402
from edgeface.training.ranking import (  # noqa: E402
    Candidates,
    Scaling,
    apply,
    average_precision,
    climb,
    find_candidates,
    fit,
    keep_count,
)
from edgeface.training.validation import TorchDetector  # noqa: E402

PRESET = "retinaface_mobilenet025"
TWO = AnchorSpec((AnchorLevel(8, (16.0,)), AnchorLevel(16, (64.0,))))


def picture(boxes: np.ndarray) -> WiderImage:
    keep = dict.fromkeys(SUBSETS, np.ones(len(boxes), bool))
    return WiderImage(Path("a.png"), "", "a", boxes, keep)


def squares(count: int, side: float, row: float) -> np.ndarray:
    left = 200.0 * np.arange(count)
    return np.stack([left, left * 0 + row, left + side, left * 0 + row + side], 1)


def crowded_by_tiny_false_alarms() -> Candidates:
    """Twenty large faces, and as many tiny false alarms, which outscore most of them."""
    faces, wrong = squares(20, 80, 0), squares(20, 12, 500)
    return Candidates(
        np.concatenate([faces, wrong]),
        np.concatenate([np.linspace(0, 2, 20), np.linspace(1, 1.9, 20)]),
        np.zeros(40),
        np.repeat([1, 0], 20),
        picture(faces),
    )


def test_false_alarms_of_one_size_fall_below_the_faces_of_another() -> None:
    found = [crowded_by_tiny_false_alarms()]
    none = Scaling.none(TWO)
    assert average_precision(found, none)["easy"] < 0.6
    chosen = fit([found, found], TWO)
    best_alarm, best_face = chosen.scales * (1.9, 2) + chosen.shifts
    assert best_alarm < best_face - 0.5
    assert average_precision(found, chosen)["easy"] > 0.9


def test_boxes_of_one_anchor_are_told_apart_by_height() -> None:
    """No scale or shift can help here: faces and false alarms come from the same anchor."""
    one = crowded_by_tiny_false_alarms()
    stretches = np.log((one.boxes[:, 3] - one.boxes[:, 1]) / 16)
    found = [Candidates(one.boxes, one.logits, stretches, np.zeros(40, int), one.picture)]
    chosen = fit([found], TWO)
    assert chosen.slopes[0] > 0
    assert chosen.slopes[1] == 0
    assert average_precision(found, chosen)["easy"] > 0.9


def test_what_is_well_ranked_stays() -> None:
    faces = squares(10, 80, 0)
    well = Candidates(faces, np.full(10, 0.5), np.zeros(10), np.full(10, 1), picture(faces))
    chosen, none = fit([[well]], TWO), Scaling.none(TWO)
    for name, numbers in vars(none).items():
        np.testing.assert_array_equal(getattr(chosen, name), numbers)


def test_the_subset_that_counts_more_wins() -> None:
    """Few large faces among many false alarms, many tiny ones among few: one has to give way."""
    large, large_wrong = squares(5, 80, 0), squares(20, 80, 300)
    tiny, tiny_wrong = squares(20, 12, 600), squares(5, 12, 900)
    boxes = [large, large_wrong, tiny, tiny_wrong]
    logits = np.concatenate([np.linspace(0, 1, len(some)) for some in boxes])
    labelled = picture(np.concatenate([large, tiny]))
    found = [
        Candidates(np.concatenate(boxes), logits, np.zeros(50), np.repeat([1, 0], 25), labelled)
    ]
    easy, hard = (
        average_precision(found, fit([found], TWO, importance))
        for importance in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    )
    assert easy["easy"] > hard["easy"] + 0.02
    assert hard["hard"] > easy["hard"] + 0.02


def test_as_many_boxes_pass_the_default_threshold_as_before() -> None:
    def passing(scaling: Scaling) -> int:
        return int((sigmoid(one.scaled(scaling)) >= DEFAULT_SCORE_THRESHOLD).sum())

    one = crowded_by_tiny_false_alarms()
    one = replace(one, logits=one.logits - 1.5)
    chosen = fit([[one], [one]], TWO)
    lower = replace(chosen, shifts=chosen.shifts - 3)
    assert passing(lower) == 0 < passing(Scaling.none(TWO)) < 40
    for scaling in (chosen, keep_count([one, one], lower)):
        assert passing(scaling) == passing(Scaling.none(TWO))


def test_it_climbs_to_the_top() -> None:
    def quality(scaling: Scaling) -> float:
        off = [scaling.scales - (0.7, 1.4), scaling.shifts - (0, -0.5), scaling.slopes - (0.3, 0)]
        return -float(np.abs(np.concatenate(off)).sum())

    chosen = climb(Scaling.none(TWO), quality)
    np.testing.assert_allclose(chosen.scales, (0.7, 1.4), atol=1e-9)
    np.testing.assert_allclose(chosen.shifts, (0, -0.5), atol=1e-9)
    np.testing.assert_allclose(chosen.slopes, (0.3, 0), atol=1e-9)


@pytest.mark.parametrize("preset", [PRESET, "edgeface_nano"])
def test_a_scaling_folds_into_the_logits_alone(preset: str) -> None:
    net = build(preset).eval()
    rng = np.random.default_rng(0)
    per_cell = [level.per_cell for level in net.anchors.levels]
    scales = rng.uniform(0.5, 2, sum(per_cell))
    scaling = Scaling(scales, *rng.normal(size=(2, sum(per_cell))))
    image = rng.integers(0, 255, (96, 128, 3), np.uint8)
    before, _ = TorchDetector(net).outputs(image)
    apply(net, scaling)
    after, _ = TorchDetector(net).outputs(image)
    first = 0
    for level, count in zip(net.anchors.levels, per_cell, strict=True):
        own = slice(first, first + count)
        logits = before[f"logit_{level.stride}"].reshape(-1, count)
        deltas = before[f"delta_{level.stride}"].reshape(-1, count, 4)
        stretches = deltas[..., 3] * net.anchors.variances[1]
        expected = (
            logits * scaling.scales[own] + scaling.shifts[own] + scaling.slopes[own] * stretches
        )
        changed = after[f"logit_{level.stride}"].reshape(-1, count)
        np.testing.assert_allclose(changed, expected, rtol=1e-4, atol=1e-4)
        first += count
    for name in before.keys() - {f"logit_{level.stride}" for level in net.anchors.levels}:
        np.testing.assert_array_equal(before[name], after[name])


def test_candidates_know_their_anchors(data: Path) -> None:
    """Large faces come from coarse anchors, and no candidate from one that does not exist."""
    path = sorted((data / "landmarks/images").rglob("*.*"))[0]
    bundle = Path(__file__).parents[1] / "edgeface/models" / PRESET / "weights.fp32.safetensors"
    net = load_weights(PRESET, read_state_dict(bundle))
    labelled = WiderImage(path, "", "a", np.zeros((0, 4)), {})
    [found] = find_candidates(net, [labelled], 640)
    faces = TorchDetector(net)(read_image(path))
    height, width = read_image(path).shape[:2]
    sizes = np.array([16, 32, 64, 128, 256, 512])[found.anchors]
    network_height = (found.boxes[:, 3] - found.boxes[:, 1]) * min(1, 640 / max(height, width))
    np.testing.assert_allclose(found.stretches, np.log(network_height / sizes), atol=0.01)
    inside = found.boxes[0].clip(0, (width, height) * 2)
    np.testing.assert_allclose(inside, faces.boxes[0], atol=0.01)
    assert set(found.anchors) <= set(range(6))
    side = np.sqrt(np.prod(found.boxes[:, 2:] - found.boxes[:, :2], 1))
    assert np.median(side[found.anchors >= 2]) > np.median(side[found.anchors < 2])


def test_the_command_writes_weights_that_load(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = build(PRESET)
    for number in range(2):
        safetensors.save_file(net.state_dict(), tmp_path / f"{number}.safetensors")
    output = tmp_path / "ranked.safetensors"
    command = ["rank", "--preset", PRESET, "--data", str(data / "wider/train"), "--limit", "2"]
    command += ["--held-out", "0.001", "-o", str(output)]
    for number in range(2):
        command += ["--checkpoint", str(tmp_path / f"{number}.safetensors")]
    assert main(command) == 0
    assert "| the pictures (2) | original |" in capsys.readouterr().out
    ranked = load_weights(PRESET, read_state_dict(output)).state_dict()
    classes = {name for name in ranked if ".classes." in name}
    assert all(
        torch.equal(ranked[name], net.state_dict()[name]) for name in ranked.keys() - classes
    )

    assert main([*command, "--importance", "0", "0", "0"]) == 1
    assert "three numbers from 0 on" in capsys.readouterr().err
    assert main([*command, "--held-out", "1"]) == 1
    assert "expected pictures to choose on, got none" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path)]) == 1
    assert "file that can be written" in capsys.readouterr().err


def test_nets_without_a_head_of_each_level_are_refused() -> None:
    net = build("fanet_mobilenet025")
    with pytest.raises(TrainingError, match="its scores stay as they are"):
        apply(net, Scaling.none(net.anchors))
