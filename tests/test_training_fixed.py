"""RetinaFace's fixed first layers (section 4.8): as loaded, through training and resumption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.errors import TrainingError

torch = pytest.importorskip("torch")

from edgeface.nets import DetectorNet, build, presets  # noqa: E402
from edgeface.nets.weights import read_state_dict  # noqa: E402
from edgeface.training.cache import build_cache  # noqa: E402
from edgeface.training.dataset import Root  # noqa: E402
from edgeface.training.labels import read_labels  # noqa: E402
from edgeface.training.loop import Settings, train  # noqa: E402
from edgeface.training.objectives import TrainingStep, build_objective  # noqa: E402
from edgeface.training.recipe import Phase  # noqa: E402
from edgeface.training.recipes import LIGHT, PAPERS, choose_recipe  # noqa: E402

PRESET = "retinaface_mobilenet025:width=16"
RECIPE = replace(choose_recipe(PRESET, "paper"), phases=(Phase(4, 64, 2),), held_out=0.0)
FIRST = {
    "retinaface_mobilenet025": ("stage1.0.", "stage1.1.0.", "stage1.1.1."),
    "edgeface_nano": ("stage1.0.", "stage1.2.0.", "stage1.2.1."),
    "isrn_mobilenet025": ("stage1.0.0.", "stage1.0.1.0.", "stage1.0.1.1."),
    "retinaface_resnet18": ("stem.", "layer1.0.residual.0.", "layer1.0.residual.1."),
    "isrn_resnet18": ("stem.0.", "stem.1.", "stem.3.residual.0.", "stem.3.residual.1."),
}


class KilledError(Exception):
    """Stands for a killed process."""


@pytest.fixture
def roots(tmp_path: Path) -> list[Root]:
    """Four pictures of noise with one bright 'face' each."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(4):
        image = rng.integers(0, 120, (96, 96, 3), np.uint8)
        cv2.circle(image, (48, 48), 20, (90, 160, 230), -1)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
        lines.append(f"# {number}.png\n28 28 40 40")
    (tmp_path / "label.txt").write_text("\n".join(lines) + "\n")
    return [Root(build_cache(read_labels(tmp_path).annotations, tmp_path / "cache"))]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A backbone's weights, whose batch norms have statistics of their own."""
    torch.manual_seed(5)
    backbone = build(PRESET).backbone
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    torch.save(backbone.state_dict(), tmp_path / "backbone.pth")
    return tmp_path / "backbone.pth"


def is_first(preset: str, name: str) -> bool:
    return name.startswith(tuple(f"backbone.{part}" for part in FIRST[preset]))


@pytest.mark.parametrize("preset", presets())
def test_the_first_two_convolutions_stay_out_of_training(preset: str) -> None:
    net = build(preset)
    recipe = replace(choose_recipe(preset, None), fixed_layers=True)
    step = TrainingStep(net, build_objective(net, recipe)).train()
    system, backbone = preset.split("_")
    own = system in ("isrn", "edgeface")
    layers = f"{system if own else 'retinaface'}_{backbone}"
    fixed = {name for name, value in net.named_parameters() if not value.requires_grad}
    assert fixed == {name for name, _ in net.named_parameters() if is_first(layers, name)}
    assert sum(net.get_parameter(name).ndim == 4 for name in fixed) == 2
    resting = {
        name
        for name, module in net.named_modules()
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.GroupNorm)) and not module.training
    }
    assert len(resting) == 2
    assert all(f"{name}.weight" in fixed for name in resting)
    assert step.training


def test_fixed_layers_stay_as_loaded_through_training_and_resumption(
    roots: list[Root], weights: Path, tmp_path: Path
) -> None:
    loaded = read_state_dict(weights)

    def kill(done: int, _text: str) -> None:
        if done == 2:
            raise KilledError

    def state(net: DetectorNet) -> dict[str, torch.Tensor]:
        return {name.removeprefix("backbone."): v for name, v in net.state_dict().items()}

    run = Settings(tmp_path / "run", weights=weights, workers=0, log_steps=1, save_minutes=0)
    with pytest.raises(KilledError):
        train(build(PRESET), roots, RECIPE, run, progress=kill)
    net = train(build(PRESET), roots, RECIPE, replace(run, weights=None, resume=True))
    trained = state(net)
    same = {name for name in loaded if torch.equal(loaded[name], trained[name])}
    assert same == {name for name in loaded if name.startswith(FIRST["retinaface_mobilenet025"])}
    assert any("running_mean" in name for name in same)


def test_nothing_to_fix_is_an_error_before_the_first_step(
    roots: list[Root], tmp_path: Path
) -> None:
    assert [s for s, recipe in PAPERS.items() if recipe.fixed_layers] == ["retinaface"]
    assert not any(recipe.fixed_layers for recipe in LIGHT.values())
    with pytest.raises(TrainingError, match=r"initial weights .* got none; .*--weights"):
        train(build(PRESET), roots, RECIPE, Settings(tmp_path / "run", workers=0))
    assert not (tmp_path / "run").exists()
