"""The training loop: resumption, guards, held-out slice, several processes, real overfitting."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.errors import CheckpointError, InvalidOptionError, TrainingError
from edgeface.evaluation.run import evaluate
from edgeface.nets import DetectorNet, build, presets
from edgeface.training.cache import build_cache
from edgeface.training.checkpoint import load_initial_weights
from edgeface.training.dataset import FaceDataset, Root, held_out
from edgeface.training.labels import Annotation, read_labels
from edgeface.training.loop import Settings, train
from edgeface.training.matching import Matching
from edgeface.training.recipe import Mix, Phase, Recipe, load_recipe
from edgeface.training.recipes import choose_recipe, scale_steps
from edgeface.training.validation import TorchDetector, held_out_figures, held_out_pictures

PRESET = "retinaface_mobilenet025"
SHORT = Recipe(PRESET, (Phase(6, 64, 4), Phase(6, 96, 2)), held_out=0.0)


class KilledError(Exception):
    """Stands for a killed process."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of noise with one bright 'face' each."""
    root = tmp_path_factory.mktemp("faces")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(8):
        image = rng.integers(0, 120, (96, 128, 3), np.uint8)
        x, y, side = int(rng.integers(5, 60)), int(rng.integers(5, 40)), int(rng.integers(24, 50))
        cv2.ellipse(
            image, (x + side // 2, y + side // 2), (side // 2,) * 2, 0, 0, 360, (90, 160, 230), -1
        )
        cv2.imwrite(str(root / "images" / f"{number}.png"), image)
        points = " ".join(
            f"{x + side * fx} {y + side * fy} 0"
            for fx, fy in ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
        )
        lines.append(f"# {number}.png\n{x} {y} {side} {side} {points} 1")
    (root / "label.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def roots(folder: Path, tmp_path: Path) -> list[Root]:
    return [Root(build_cache(read_labels(folder).annotations, tmp_path / "cache"))]


def fresh_net() -> DetectorNet:
    torch.manual_seed(SHORT.seed)
    return build(PRESET)


def losses(run: Path) -> list[tuple[str, str]]:
    with (run / "log.csv").open() as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


def test_a_killed_run_resumes_with_the_same_losses(roots: list[Root], tmp_path: Path) -> None:
    settings = Settings(tmp_path / "whole", workers=0, log_steps=1)
    train(fresh_net(), roots, SHORT, settings)

    def kill(done: int, _text: str) -> None:
        if done == 8:
            raise KilledError

    broken = replace(settings, output=tmp_path / "broken", save_minutes=0)
    with pytest.raises(KilledError):
        train(fresh_net(), roots, SHORT, broken, progress=kill)
    train(build(PRESET), roots, SHORT, replace(broken, resume=True))
    whole = losses(tmp_path / "whole")
    assert [step for step, _ in whole] == [str(step) for step in range(1, 13)]
    assert losses(tmp_path / "broken") == whole
    assert (tmp_path / "broken" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_samples_depend_on_their_number_alone(roots: list[Root]) -> None:
    net = build(PRESET)
    first, second = (FaceDataset(roots, net.anchors, SHORT, SHORT.phases[0]) for _ in range(2))
    for number in (5, 0, 9):
        np.testing.assert_array_equal(first[number].sample.image, second[number].sample.image)
    assert (first[0].sample.image != first[1].sample.image).any()


def test_a_partial_root_has_no_background(folder: Path, roots: list[Root]) -> None:
    net = build(PRESET)
    partial = [replace(roots[0], partial=True)]
    recipe = replace(SHORT, mix=Mix(0, 0, 0))
    item = FaceDataset(partial, net.anchors, recipe, Phase(1, 64, 1))[0]
    assert (item.targets.labels == 0).sum() < (item.targets.labels == -1).sum()
    whole = FaceDataset(roots, net.anchors, recipe, Phase(1, 64, 1))[0]
    assert (whole.targets.labels == 0).sum() > (item.targets.labels == 0).sum()


def test_roots_are_mixed_by_weight_and_the_held_out_slice_is_not_drawn(roots: list[Root]) -> None:
    share = 0.5
    names = {a.image.stem for a in roots[0].pictures.annotations}
    kept_out = {name for name in names if held_out(name, share)}
    assert 0 < len(kept_out) < len(names)
    recipe = replace(SHORT, held_out=share, mix=Mix(0, 0, 0))
    dataset = FaceDataset(roots, build(PRESET).anchors, recipe, SHORT.phases[0])
    drawn = {Path(dataset[number].source).stem for number in range(60)}
    assert drawn == names - kept_out
    pictures = held_out_pictures(roots, share)
    assert {picture.name for picture in pictures} == kept_out
    assert set(held_out_figures(build(PRESET).eval(), pictures)) == {"ap", "map"}

    weighted = [replace(roots[0], weight=0.0), replace(roots[0], partial=True)]
    dataset = FaceDataset(weighted, build(PRESET).anchors, recipe, SHORT.phases[0])
    assert all((dataset[number].targets.labels == -1).any() for number in range(10))


def test_a_loss_that_is_not_finite_stops_with_the_pictures_named(
    roots: list[Root], tmp_path: Path
) -> None:
    net = build(PRESET)
    torch.nn.init.constant_(net.backbone.stage1[0][0].weight, float("nan"))
    with pytest.raises(TrainingError, match=r"step 0.*\d\.png"):
        train(net, roots, SHORT, Settings(tmp_path / "run", workers=0))
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(
    roots: list[Root], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = build(PRESET)
    before = {name: value.clone() for name, value in net.named_parameters()}
    net.backbone.stage1[0][0].weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"finite gradient at step 0.*\d\.png"):
        train(net, roots, SHORT, Settings(tmp_path / "run", workers=0))
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())


def test_clear_errors_before_the_first_step(roots: list[Root], tmp_path: Path) -> None:
    settings = Settings(tmp_path / "run", workers=0)
    with pytest.raises(TrainingError, match="multiples of 32"):
        train(build(PRESET), roots, replace(SHORT, phases=(Phase(1, 100, 1),)), settings)
    with pytest.raises(TrainingError, match="schedule"):
        train(build(PRESET), roots, replace(SHORT, schedule="linear"), settings)
    with pytest.raises(TrainingError, match="supervision of retinaface"):
        train(build(PRESET), roots, replace(SHORT, supervision=(("magic", 1.0),)), settings)
    far = AnchorSpec((AnchorLevel(8, (2000.0,)), AnchorLevel(16, (3000.0,))))
    net = build(PRESET)
    net.anchors = far
    with pytest.raises(TrainingError, match=r"anchors of 2000, 3000 pixels and \d+ faces of"):
        train(net, roots, SHORT, settings)
    assert not settings.output.exists()
    with pytest.raises(TrainingError, match="checkpoint to resume from"):
        train(build(PRESET), roots, SHORT, replace(settings, resume=True))
    one = replace(SHORT, phases=(Phase(1, 64, 2),))
    train(build(PRESET), roots, one, settings)
    with pytest.raises(TrainingError, match="without a run in it"):
        train(build(PRESET), roots, one, settings)
    other = replace(one, preset="retinaface_resnet18")
    with pytest.raises(TrainingError, match="of preset 'retinaface_resnet18'"):
        train(build(other.preset), roots, other, replace(settings, resume=True))
    with pytest.raises(CheckpointError, match="preset 'retinaface_resnet18'"):
        load_initial_weights(tmp_path / "run" / "weights.safetensors", build(other.preset))
    with pytest.raises(InvalidOptionError, match="retinaface_mobilenet025"):
        build("retinaface")


def test_recipes(tmp_path: Path) -> None:
    paper = choose_recipe(PRESET, "paper")
    steps = paper.steps
    assert paper.learning_rate_at(0) == pytest.approx(1e-3)
    assert paper.learning_rate_at(steps // 2) == pytest.approx(1e-2)
    assert paper.learning_rate_at(int(steps * 56 / 80)) == pytest.approx(1e-3)
    assert paper.learning_rate_at(steps - 1) == pytest.approx(1e-4)
    assert (paper.box_weight, paper.landmark_weight) == (0.25, 0.1)
    assert (paper.matching.positive, paper.matching.negative) == (0.5, 0.3)
    ours = choose_recipe(PRESET, None)
    ours.save(tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json") == ours
    assert scale_steps(ours, 56).steps == 56
    (tmp_path / "recipe.json").write_text('{"preset": "x", "speed": 3}')
    with pytest.raises(TrainingError, match="speed"):
        load_recipe(tmp_path / "recipe.json")


def test_two_processes_under_torchrun(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "edgeface", "train", "--data", str(folder), "--output", str(tmp_path / "run")]
    command += ["--cache", str(tmp_path / "cache"), "--workers", "0", "--threads", "1"]
    SHORT.save(tmp_path / "short.json")
    result = subprocess.run(
        [*command, "--recipe", str(tmp_path / "short.json"), "--device", "cpu"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "weights.safetensors").is_file()
    assert losses(tmp_path / "run")[-1][0] == "12"


EVERY_SYSTEM = """
import sys
from torch import distributed
from edgeface.cli.main import main
folder, output, *presets = sys.argv[1:]
leave, distributed.destroy_process_group = distributed.destroy_process_group, lambda: None
for preset in presets:
    options = ["--data", folder, "--cache", f"{output}/cache", "--workers", "0", "--threads", "1"]
    options += ["--recipe", f"{output}/{preset}.json", "--device", "cpu"]
    if main(["train", "--preset", preset, "--output", f"{output}/{preset}", *options]):
        sys.exit(f"{preset} failed")
leave()
"""


def test_every_system_trains_in_two_processes(folder: Path, tmp_path: Path) -> None:
    """Every parameter gets its gradient, or the processes would wait for each other forever.

    One start serves all systems: the processes stay joined from one training to the next.
    """
    script = tmp_path / "every_system.py"
    script.write_text(EVERY_SYSTEM)
    chosen = [name for name in presets() if not name.endswith("resnet18")]
    for preset in chosen:
        recipe = choose_recipe(preset, "short")
        recipe = replace(recipe, phases=(Phase(2, 128, 4),), held_out=0.0)
        recipe.save(tmp_path / f"{preset}.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    result = subprocess.run(
        [*command, str(folder), str(tmp_path), *chosen],
        cwd=tmp_path, capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert [losses(tmp_path / preset)[-1][0] for preset in chosen] == ["2"] * 6


def test_real_training_lowers_the_loss_and_overfits_a_handful(data: Path, tmp_path: Path) -> None:
    """Two minutes of the real command, in a process of its own as users run it."""
    labels = read_labels(data / "wider" / "train").annotations
    handful = [a for a in labels if 2 <= len(a.boxes) <= 4 and _are_large(a)][:6]
    root = tmp_path / "handful"
    (root / "images").mkdir(parents=True)
    lines = []
    for annotation in handful:
        (root / "images" / annotation.image.name).symlink_to(annotation.image)
        lines.append(f"# {annotation.image.name}")
        lines += [
            f"{left} {top} {right - left} {bottom - top}"
            for left, top, right, bottom in annotation.boxes
        ]
    (root / "label.txt").write_text("\n".join(lines) + "\n")
    recipe = Recipe(
        PRESET,
        (Phase(220, 320, 8, (0.8, 1.2)),),
        learning_rate=3e-2,
        warm_up=0.05,
        schedule="cosine",
        average=0.95,
        matching=Matching(0.35, 0.3),
        mix=Mix(0, 0.3, 0, zoom_out_most=1.3),
        supervision=(("dense", 0.0),),
        held_out=0.0,
    )
    recipe.save(tmp_path / "recipe.json")
    command = [sys.executable, "-m", "edgeface", "train", "--data", str(root)]
    command += ["--output", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]
    command += ["--recipe", str(tmp_path / "recipe.json"), "--device", "cpu"]
    command += ["--weights", str(data / "backbones" / "mobilenet_v1_025_imagenet.safetensors")]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=580)

    curve = [float(loss) for _, loss in losses(tmp_path / "run")]
    assert curve[-1] < 0.4 * curve[0]
    net = build(PRESET)
    load_initial_weights(tmp_path / "run" / "weights.safetensors", net)
    pictures = held_out_pictures([Root(build_cache(handful, tmp_path / "cache"))], share=1.0)
    assert evaluate(TorchDetector(net.eval(), long_side=320), pictures).hard > 0.9


def _are_large(annotation: Annotation) -> bool:
    sides = annotation.boxes[:, 2:] - annotation.boxes[:, :2]
    return not annotation.ignore.any() and bool(sides.min() > 40)
