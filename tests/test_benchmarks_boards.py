from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgeface.bundle import load_bundle

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "boards.py"


@pytest.fixture(scope="module")
def boards() -> ModuleType:
    pytest.importorskip("ai_edge_litert")
    spec = importlib.util.spec_from_file_location("benchmark_boards", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_shipped_net_is_counted(boards: ModuleType) -> None:
    """0.74 GMAC at 640 x 480, as ``edgeface presets`` counts the same net in PyTorch."""
    bundle = load_bundle("retinaface_mobilenet025")
    model = bundle.open(bundle.find("tflite", "fp32"))
    macs = [
        sum(one.macs for one in boards.read_operators(model, *s)) for s in ((640, 480), (320, 256))
    ]
    assert macs[0] / 1e9 == pytest.approx(0.74, abs=0.01)
    assert macs[1] / macs[0] == pytest.approx(320 * 256 / (640 * 480), rel=0.01)


@pytest.mark.parametrize(
    ("precision", "dot_product", "products"),
    [("fp32", True, 4), ("int8", True, 16), ("int8", False, 4)],
)
def test_bound_is_products_by_clock(
    boards: ModuleType, precision: str, dot_product: bool, products: int
) -> None:
    board = boards.Board("b", 2, "core", 2.0, 1, dot_product)
    operators = [boards.Operator(boards.CONVOLUTION, 8_000_000, 0, precision == "int8")]
    operators.append(boards.Operator(boards.MOVEMENT, 0, 64_000_000))
    expected = 8 / (products * 4) + 64 / (16 * 4)
    assert boards.bound(operators, board) == pytest.approx(expected)


def test_the_paper_sets_the_efficiency(boards: ModuleType) -> None:
    """A net of the paper's size whose bound is half of the paper's time."""
    rate = 4 * boards.RK3399.cores * boards.RK3399.ghz * 1e6
    operators = [boards.Operator(boards.CONVOLUTION, int(boards.PAPER_MAC), 0)]
    expected = boards.PAPER_MAC / rate / boards.PAPER_MS
    assert boards.paper_efficiency(operators) == pytest.approx(expected)
    table = boards.board_table({"fp32": operators}, expected, None)
    assert f"| RK3399 | 2 x Cortex-A72 at 1.8 GHz | {boards.PAPER_MAC / rate:.1f} | 61 |" in table
