"""Ranges from histograms that grow, by four methods; kept between runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.calibration.histogram import BINS, METHODS, Histogram
from edgeface.calibration.ranges import SAVE_EVERY, collect
from edgeface.errors import CalibrationError

FRAMES = [np.full((1, 4, 4, 3), value, np.uint8) for value in range(2 * SAVE_EVERY + 20)]


def histogram(values: NDArray[np.float32], parts: int = 1) -> Histogram:
    result = Histogram.empty()
    for part in np.array_split(values, parts):
        result.add(part)
    return result


def squared_error(values: NDArray[np.float32], low: float, high: float) -> float:
    step = (high - low) / 255
    rounded = np.round((np.clip(values, low, high) - low) / step) * step + low
    return float(np.square(values - rounded).mean())


@pytest.mark.parametrize("order", [1, -1])
def test_a_histogram_loses_no_value_however_it_grows(order: int) -> None:
    values = np.sort(np.random.default_rng(0).normal(0, 3, 5000).astype(np.float32))[::order]
    counted = histogram(values, parts=50)
    assert counted.counts.sum() == len(values)
    assert (counted.low, counted.high) == (values.min(), values.max())
    expected, _ = np.histogram(values, bins=counted.edges)
    # Rounding may move a value that lies on an edge to the next bin.
    assert np.abs(np.cumsum(counted.counts - expected)).max() <= 2
    assert len(counted.counts) == BINS


def test_minmax_keeps_all_and_percentile_cuts_the_tails() -> None:
    values = np.linspace(-1, 3, 400_001, dtype=np.float32)
    counted = histogram(np.append(values, np.float32([-50, 80])), parts=8)
    assert METHODS["minmax"](counted) == (-50, 80)
    low, high = METHODS["percentile"](counted)
    assert low == pytest.approx(-1, abs=0.05)
    assert high == pytest.approx(3, abs=0.05)


def test_a_lone_outlier_does_not_stretch_the_range_of_entropy() -> None:
    values = np.random.default_rng(1).normal(0, 1, 200_000).astype(np.float32)
    low, high = METHODS["entropy"](histogram(np.append(values, np.float32(60))))
    assert -6 < low < -2
    assert 2 < high < 8


def test_mse_is_the_best_of_all_in_squared_error() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.laplace(0, 1, 100_000), [30.0, -3.0]]).astype(np.float32)
    errors = {
        name: squared_error(values, *method(histogram(values))) for name, method in METHODS.items()
    }
    assert min(errors, key=errors.__getitem__) == "mse"


def test_entropy_differs_from_minmax_on_long_tails() -> None:
    values = np.random.default_rng(3).standard_t(3, 200_000).astype(np.float32)
    counted = histogram(values)
    assert METHODS["entropy"](counted)[1] < 0.7 * METHODS["minmax"](counted)[1]


def test_a_rectified_tensor_keeps_its_zero() -> None:
    values = np.maximum(np.random.default_rng(4).normal(0, 1, 50_000), 0).astype(np.float32)
    for name, method in METHODS.items():
        low, high = method(histogram(values))
        assert low <= 0 or (name == "percentile" and low == pytest.approx(0, abs=1e-3))
        assert high > 2


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def run(frame: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    return {"a": frame.astype(np.float32), "b": -frame.astype(np.float32)}


def show(items: Iterable[Any], description: str) -> Iterable[Any]:
    return items


@pytest.mark.usefixtures("cache")
def test_a_stopped_run_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def stops(at: int | None) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]:
        def one(frame: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            if frame[0, 0, 0, 0] == at:
                raise KeyboardInterrupt
            seen.append(int(frame[0, 0, 0, 0]))
            return run(frame)

        return one

    whole = collect(b"graph", run, FRAMES, "", show)
    with pytest.raises(KeyboardInterrupt):
        collect(b"graph", stops(SAVE_EVERY + 7), FRAMES, "frames", show)
    seen.clear()
    resumed = collect(b"graph", stops(None), FRAMES, "frames", show)
    assert seen == list(range(SAVE_EVERY, len(FRAMES)))
    for name, one in whole.items():
        assert np.array_equal(resumed[name].counts, one.counts)
        assert (resumed[name].low, resumed[name].high) == (one.low, one.high)
    seen.clear()
    collect(b"graph", stops(None), FRAMES, "frames", show)
    assert seen == []
    collect(b"another graph", stops(None), FRAMES, "frames", show)
    assert len(seen) == len(FRAMES)


def test_activations_that_overflow_are_named() -> None:
    def overflows(frame: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {"head": np.float32([np.inf if frame.max() == 3 else 1])}

    with pytest.raises(CalibrationError, match="'head' for calibration picture 3"):
        collect(b"", overflows, FRAMES[:8], "", show)
