"""A system's losses, matching and decoding agree: its net learns eight real pictures by heart.

``benchmarks/overfit.py`` does so for every preset and prints the table. Here is one preset of each
system, those that learn slowly on fewer pictures; RetinaFace is trained by the command in
``test_training_loop``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgeface.training.cache import build_cache
from edgeface.training.dataset import Root
from edgeface.training.labels import Annotation, read_labels

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "overfit.py"
SIDE = 128
# Pictures and steps.
QUICK = {
    "fanet_mobilenet025": (8, 150),
    "refineface_mobilenet025": (8, 150),
    "df2s2_mobilenet025": (8, 400),
    "isrn_mobilenet025": (3, 240),
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_overfit", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chosen(script: ModuleType, data: Path) -> list[Annotation]:
    annotations: list[Annotation] = script.choose_pictures(
        read_labels(data / "wider" / "train").annotations
    )
    return annotations


def test_the_pictures_differ_and_their_faces_are_large(chosen: list[Annotation]) -> None:
    assert len({annotation.event for annotation in chosen}) == len(chosen) == 8
    for annotation in chosen:
        sides = annotation.boxes[:, 2:] - annotation.boxes[:, :2]
        assert 1 <= len(sides) <= 3
        assert sides.max(1).min() > 0.15 * annotation.boxes.max()


@pytest.mark.slow
@pytest.mark.parametrize("preset", QUICK)
def test_a_preset_learns_real_pictures(
    preset: str, script: ModuleType, chosen: list[Annotation], data: Path, tmp_path: Path
) -> None:
    pictures, steps = QUICK[preset]
    root = Root(build_cache(chosen[:pictures], tmp_path))
    assert script.overfit(preset, root, data / "backbones", SIDE, steps).ap > 0.9
