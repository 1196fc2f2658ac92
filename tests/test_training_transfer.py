"""Weights of another net as initial weights, and task-aligned runs by AdamW and Muon."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.cli.main import main
from edgeface.errors import CheckpointError, ModelNotFoundError

torch = pytest.importorskip("torch")

from edgeface.evaluation.run import evaluate  # noqa: E402
from edgeface.nets import build  # noqa: E402
from edgeface.training.cache import build_cache  # noqa: E402
from edgeface.training.checkpoint import transfer_weights  # noqa: E402
from edgeface.training.dataset import Root  # noqa: E402
from edgeface.training.labels import read_labels  # noqa: E402
from edgeface.training.loop import Settings, train  # noqa: E402
from edgeface.training.recipe import Mix, Phase  # noqa: E402
from edgeface.training.recipes import choose_recipe  # noqa: E402
from edgeface.training.validation import TorchDetector, held_out_pictures  # noqa: E402

NANO = "edgeface_nano"
STEPS, KILLED_AT = 4, 2


class KilledError(Exception):
    """Stands for a killed process."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of noise with one bright 'face' each, and their labels."""
    folder = tmp_path_factory.mktemp("faces")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(4):
        image = rng.integers(0, 120, (128, 128, 3), np.uint8)
        x, y, side = (int(value) for value in rng.integers(24, 56, 3))
        cv2.circle(image, (x + side // 2, y + side // 2), side // 2, (90, 160, 230), -1)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image)
        lines.append(f"# {number}.png\n{x} {y} {side} {side}")
    (folder / "label.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def roots(folder: Path) -> list[Root]:
    return [Root(build_cache(read_labels(folder).annotations, folder / "cache"))]


@pytest.fixture(scope="module")
def retinaface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of RetinaFace's light variant."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "retinaface.pt"
    torch.save(build("retinaface_mobilenet025").state_dict(), path)
    return path


def test_weights_that_fit_by_name_and_shape_are_taken(retinaface: Path) -> None:
    given = torch.load(retinaface, weights_only=True)
    net = build(NANO)
    fresh = {name: value.clone() for name, value in net.state_dict().items()}
    taken = transfer_weights(retinaface, net)
    own = net.state_dict()
    equal = [name for name in own if name in given and torch.equal(own[name], given[name])]
    assert {"backbone.stage2.3.0.weight", "backbone.stage1.2.3.weight"} <= set(equal)
    assert "neck.lateral.0.0.weight" in equal
    assert torch.equal(own["backbone.stage1.0.0.weight"], fresh["backbone.stage1.0.0.weight"])
    assert sum("num_batches" not in name for name in equal) == taken


def test_weights_of_which_none_fits_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(CheckpointError, match="of which some fit 'edgeface_nano' by name and"):
        transfer_weights(tmp_path / "linear.pt", build(NANO))
    with pytest.raises(ModelNotFoundError):
        transfer_weights(tmp_path / "absent.pt", build(NANO))


def test_the_command_transfers_and_refuses_two_sources(
    folder: Path, retinaface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(choose_recipe(NANO, None), phases=(Phase(1, 64, 2),), held_out=0.0)
    recipe.save(tmp_path / "recipe.json")
    command = ["train", "--preset", NANO, "--recipe", str(tmp_path / "recipe.json")]
    command += ["--data", str(folder), "--cache", str(tmp_path), "--workers", "0"]
    command += ["--output", str(tmp_path / "run"), "--transfer", str(retinaface)]
    assert main(command) == 0
    assert (tmp_path / "run" / "weights.safetensors").is_file()
    with pytest.raises(SystemExit):
        main([*command, "--weights", str(retinaface)])
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_resumes_exactly(optimizer: str, roots: list[Root], tmp_path: Path) -> None:
    recipe = replace(
        choose_recipe(NANO, None), phases=(Phase(STEPS, 64, 2),), optimizer=optimizer, held_out=0.0,
        learning_rate=1e-3,
    )  # fmt: skip

    def kill(done: int, _text: str) -> None:
        if done == KILLED_AT:
            raise KilledError

    def run(settings: Settings, **others: object) -> list[str]:
        torch.manual_seed(0)
        train(build(NANO), roots, recipe, settings, **others)  # type: ignore[arg-type]
        with (settings.output / "log.csv").open() as file:
            return [row["loss"] for row in csv.DictReader(file)]

    whole = run(Settings(tmp_path / "whole", workers=0, log_steps=1))
    broken = Settings(tmp_path / "broken", workers=0, log_steps=1, save_minutes=0)
    with pytest.raises(KilledError):
        run(broken, progress=kill)
    assert run(replace(broken, resume=True)) == whole
    assert len(whole) == STEPS


def test_nano_learns_a_handful_of_faces(roots: list[Root], tmp_path: Path) -> None:
    recipe = replace(
        choose_recipe(NANO, None), phases=(Phase(120, 128, 4, (1.0, 1.0)),), held_out=0.0,
        average=0.9, mix=Mix(0, 0, 0), learning_rate=2e-2,
    )  # fmt: skip
    torch.manual_seed(0)
    net = train(build(NANO), roots, recipe, Settings(tmp_path / "run", workers=0))
    report = evaluate(TorchDetector(net, long_side=128), held_out_pictures(roots, share=1.0))
    assert report.hard > 0.9
