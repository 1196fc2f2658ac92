"""The page of measurements is filled between its marks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "performance.py"


@pytest.fixture(scope="module")
def performance() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_performance", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_every_mark(performance: ModuleType) -> None:
    page = performance.PAGE.read_text("utf-8")
    for name in ("against", "growth", "hotpath", "paper"):
        filled = performance.put(page, name, f"the table of {name}")
        assert f"<!-- measured: {name} -->\n\nthe table of {name}\n\n<!-- end of" in filled
        assert performance.put(filled, name, f"the table of {name}") == filled
        assert filled.endswith("measures this page's tables\nand plots anew.\n")


def test_a_page_without_marks_is_told(performance: ModuleType) -> None:
    with pytest.raises(ValueError, match="measured: growth"):
        performance.put("nothing", "growth", "x")
