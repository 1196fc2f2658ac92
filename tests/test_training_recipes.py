"""The papers' recipes as data, against the numbers in the papers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeface.errors import InvalidOptionError, TrainingError
from edgeface.nets import build, find_preset, presets
from edgeface.training.recipe import Recipe, load_recipe
from edgeface.training.recipes import LIGHT, NAMED, PAPERS, choose_recipe, scale_steps


def epochs(recipe: Recipe) -> float:
    """Passes over WIDER FACE's 12,880 training pictures."""
    return sum(phase.steps * phase.batch for phase in recipe.phases) / 12_880


@pytest.mark.parametrize(
    ("system", "passes", "size", "batch", "peak", "decay", "drops"),
    [
        ("retinaface", 80, 640, 32, 1e-2, 5e-4, (55, 68)),
        ("refineface", 130, 1024, 32, 1e-2, 1e-4, (100, 120)),
        ("isrn", 260, 1024, 32, 1e-2, 1e-4, (230, 250)),
        ("df2s2", 120, 640, 32, 4e-3, 1e-4, (80, 100)),
        ("fanet", 120, 640, 12, 4e-3, 5e-4, (80, 100)),
    ],
)
def test_schedules(
    system: str, passes: int, size: int, batch: int, peak: float, decay: float,
    drops: tuple[int, int],
) -> None:  # fmt: skip
    recipe = PAPERS[system]
    assert epochs(recipe) == pytest.approx(passes, abs=0.01)
    assert [(phase.size, phase.batch) for phase in recipe.phases] == [(size, batch)]
    assert (recipe.momentum, recipe.weight_decay) == (0.9, decay)

    def rate(epoch: float) -> float:
        return recipe.learning_rate_at(int(recipe.steps * epoch / passes))

    assert rate(drops[0] - 1) == pytest.approx(peak)
    assert rate(drops[0] + 1) == pytest.approx(peak / 10)
    assert rate(drops[1] + 1) == pytest.approx(peak / 100)


def test_warm_ups() -> None:
    assert PAPERS["retinaface"].learning_rate_at(0) == pytest.approx(1e-3)
    assert PAPERS["refineface"].learning_rate_at(0) == pytest.approx(3.125e-4)
    assert PAPERS["fanet"].learning_rate_at(0) == pytest.approx(4e-3)


def test_losses_and_matching() -> None:
    kinds = {system: recipe.classification for system, recipe in PAPERS.items()}
    assert kinds == {
        "retinaface": "ohem", "refineface": "focal", "isrn": "focal", "df2s2": "focal",
        "fanet": "ohem",
    }  # fmt: skip
    first = {s: (r.matching.positive, r.matching.negative) for s, r in PAPERS.items()}
    assert first == {
        "retinaface": (0.5, 0.3), "refineface": (0.7, 0.3), "isrn": (0.7, 0.3),
        "df2s2": (0.5, 0.4), "fanet": (0.35, 0.35),
    }  # fmt: skip
    for system in ("refineface", "isrn"):
        second = PAPERS[system].second_matching
        assert (second.positive, second.negative) == (0.5, 0.4)
    assert PAPERS["isrn"].mix.anchor_sampling == 0.5
    assert (PAPERS["retinaface"].box_weight, PAPERS["retinaface"].landmark_weight) == (0.25, 0.1)


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        (preset, name)
        for preset in presets()
        for name in (None, "paper", "short", *NAMED)
        if (preset, name) != ("edgeface_nano", "paper")
        if name not in NAMED or find_preset(preset).system in ("retinaface", "nano")
    ],
)
def test_every_preset_has_recipes_that_it_can_train_by(
    preset: str, name: str | None, tmp_path: Path
) -> None:
    recipe = choose_recipe(preset, name)
    assert recipe.preset == preset
    recipe.check(build(preset).anchors.max_stride)
    recipe.save(tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json") == recipe
    assert choose_recipe(preset, str(tmp_path / "recipe.json")) == recipe


def test_options_keep_the_recipe_and_unknown_presets_are_refused() -> None:
    wide = choose_recipe("retinaface_mobilenet025:width=128", None)
    assert wide.phases == choose_recipe("retinaface_mobilenet025", None).phases
    assert wide.preset == "retinaface_mobilenet025:width=128"
    with pytest.raises(InvalidOptionError, match="expected a preset of"):
        choose_recipe("resnet", None)
    assert scale_steps(wide, 100).steps == pytest.approx(100, abs=1)
    assert set(LIGHT) == {find_preset(name).system for name in presets()}
    assert set(LIGHT) - set(PAPERS) == {"nano"}
    with pytest.raises(TrainingError, match="a published detector for its paper's recipe"):
        choose_recipe("edgeface_nano", "paper")
