from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "misses.py"


@pytest.fixture(scope="module")
def misses() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_misses", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_boxes_turn_with_the_picture(misses: ModuleType) -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[5:15, 20:50] = 255
    turns = 0
    for _, change, place in misses.CONDITIONS.values():
        if place is misses.stay:
            continue
        rows, columns = np.nonzero(change(picture)[..., 0])
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert place(np.array([[20, 5, 50, 15]]), (60, 40)).tolist() == [drawn]
        turns += 1
    assert turns == 2


def test_the_table_counts_each_face(
    misses: ModuleType,
    astronaut: NDArray[np.uint8],
    make_wider: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    face, elsewhere, small = (178, 60, 92, 120), (400, 400, 60, 60), (178, 60, 20, 20)
    labels = [(*box, 1, 1, 1) for box in (face, elsewhere, small)]
    root = make_wider(picture=astronaut, faces={("0--A", "a_1"): labels})
    monkeypatch.setattr(sys, "argv", ["misses.py", "--data", str(root)])
    misses.main()
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[4:]]
    assert len(rows) == len(misses.CONDITIONS)
    first = [cell.strip() for cell in rows[0]]
    assert first[:4] == ["as it is", "2", "1", "0.50"]
