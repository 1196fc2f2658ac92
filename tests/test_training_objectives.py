"""Objectives with modules of their own: what the loop does with them, to the exported bundle."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.bundle import load_bundle
from edgeface.cli.main import main
from edgeface.errors import TrainingError

torch = pytest.importorskip("torch")

from edgeface.nets import build  # noqa: E402
from edgeface.nets.weights import read_state_dict  # noqa: E402
from edgeface.training.cache import build_cache  # noqa: E402
from edgeface.training.dataset import Root  # noqa: E402
from edgeface.training.labels import read_labels  # noqa: E402
from edgeface.training.loop import Settings, train  # noqa: E402
from edgeface.training.recipe import Phase  # noqa: E402
from edgeface.training.recipes import choose_recipe  # noqa: E402

PRESETS = ["df2s2_mobilenet025:width=8", "fanet_mobilenet025:width=8"]
STEPS, KILLED_AT = 3, 2


class KilledError(Exception):
    """Stands for a killed process."""


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[Root]:
    """Four pictures of noise with one bright 'face' each."""
    folder = tmp_path_factory.mktemp("faces")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(4):
        image = rng.integers(0, 120, (128, 128, 3), np.uint8)
        x, y, side = (int(value) for value in rng.integers(20, 60, 3))
        cv2.circle(image, (x + side // 2, y + side // 2), side // 2, (90, 160, 230), -1)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image)
        lines.append(f"# {number}.png\n{x} {y} {side} {side}")
    (folder / "label.txt").write_text("\n".join(lines) + "\n")
    return [Root(build_cache(read_labels(folder).annotations, folder / "cache"))]


def losses(run: Path) -> list[str]:
    with (run / "log.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_killed_run_resumes_with_its_objective_and_saves_weights_without_it(
    preset: str, roots: list[Root], tmp_path: Path
) -> None:
    recipe = replace(choose_recipe(preset, None), phases=(Phase(STEPS, 128, 2),), held_out=0.0)
    whole = Settings(tmp_path / "whole", workers=0, log_steps=1)

    def kill(done: int, _text: str) -> None:
        if done == KILLED_AT:
            raise KilledError

    torch.manual_seed(0)
    net = build(preset)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(1)
    train(net, roots, recipe, whole)
    broken = replace(whole, output=tmp_path / "broken", save_minutes=0)
    again = build(preset)
    again.load_state_dict(start)
    torch.manual_seed(1)
    with pytest.raises(KilledError):
        train(again, roots, recipe, broken, progress=kill)
    train(build(preset), roots, recipe, replace(broken, resume=True))
    assert len(losses(tmp_path / "whole")) == STEPS
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")

    other = PRESETS[1 - PRESETS.index(preset)]
    with pytest.raises(TrainingError, match=f"of preset '{other}'.*got one of '{preset}'"):
        train(
            build(other),
            roots,
            replace(recipe, preset=other, supervision=()),
            replace(broken, resume=True),
        )

    state = torch.load(tmp_path / "broken" / "last.pt", weights_only=True)
    assert state["objective"]
    weights = read_state_dict(tmp_path / "broken" / "weights.safetensors")
    assert set(weights) == set(net.state_dict())


@pytest.mark.slow
def test_a_checkpoint_becomes_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("litert_torch")
    torch.manual_seed(0)
    preset, output = "fanet_mobilenet025", tmp_path / "bundle"
    torch.save(build(preset).state_dict(), tmp_path / "weights.pt")
    arguments = ["--checkpoint", str(tmp_path / "weights.pt"), "--preset", preset]
    assert main(["export", *arguments, "-o", str(output)]) == 0
    table = capsys.readouterr().out.splitlines()
    for backend in ("onnxruntime", "openvino", "tflite"):
        assert any(backend in line and "equal" in line for line in table), table
    bundle = load_bundle(output)
    assert (bundle.preset, bundle.anchors.max_stride) == (preset, 128)
