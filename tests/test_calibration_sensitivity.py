"""Which layers cost most, and how few of them have to stay in float."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from edgeface.bench.timing import WARM_UP
from edgeface.calibration.accuracy import Accuracy
from edgeface.calibration.fallback import Fallback, keep_worst_float
from edgeface.calibration.gate import Verdict
from edgeface.calibration.latency import interleaved
from edgeface.calibration.sensitivity import (
    LayerCost,
    layer_costs,
    plot,
    relevant_snr,
    to_markdown,
    worst_first,
)
from edgeface.errors import AccuracyError
from edgeface.runtimes.base import Outputs

pytest.importorskip("torch")

LAYERS = ("stem", "neck", "boxes", "points")
ANCHORS = 200


def outputs(logit: float = 0, delta: float = 0, landmark: float = 0) -> Outputs:
    """Fp32's outputs, where every third anchor is a face, with that noise."""
    face = (np.arange(ANCHORS) % 3 == 0).astype(np.float32)
    return {
        "logit_8": (8 * face - 6 + logit).reshape(1, -1, 1).astype(np.float32),
        "delta_8": np.full((1, ANCHORS, 4), 1 + delta, np.float32),
        "landmark_8": np.full((1, ANCHORS, 10), 1 + landmark, np.float32),
    }


def quantise(keep_float: frozenset[str]) -> bytes:
    return ",".join(layer for layer in LAYERS if layer not in keep_float).encode()


def run(content: bytes, frames: Sequence[object]) -> list[Outputs]:
    quantised = content.decode().split(",")
    noise = {
        "logit": 0.1 * ("stem" in quantised),
        "delta": 0.1 * ("boxes" in quantised),
        "landmark": 0.5 * ("points" in quantised),
    }
    return [outputs(**noise) for _ in frames]


def test_each_layer_is_quantised_alone() -> None:
    frames = [np.zeros((1, 32, 32, 3), np.uint8)] * 2
    costs = layer_costs(LAYERS, quantise, run, [outputs()] * 2, frames)
    assert [cost.layer for cost in costs] == list(LAYERS)
    assert [cost.layer for cost in worst_first(costs)] == ["points", "boxes", "stem", "neck"]
    by_name = {cost.layer: cost for cost in costs}
    assert by_name["neck"].worst == np.inf
    assert by_name["boxes"].delta == pytest.approx(20, abs=0.01)
    assert by_name["points"].worst == pytest.approx(20 * np.log10(2), abs=0.01)
    assert by_name["neck"].to_dict()["logit"] is None


def test_noise_counts_where_faces_come_from() -> None:
    noisy = {name: value.copy() for name, value in outputs().items()}
    noisy["delta_8"][0, 1::3] += 100
    noisy["delta_8"][0, 2::3] += 100
    assert relevant_snr([outputs()], [noisy])["delta"] == np.inf
    noisy["delta_8"][0, 0] += 1
    assert relevant_snr([outputs()], [noisy])["delta"] == pytest.approx(
        10 * np.log10(len(range(0, ANCHORS, 3))), abs=0.01
    )


def test_a_frame_without_faces_is_judged_at_its_best_anchors() -> None:
    empty = {
        **outputs(),
        "logit_8": np.linspace(-30, -20, ANCHORS, dtype=np.float32)[None, :, None],
    }
    noisy = {name: value.copy() for name, value in empty.items()}
    noisy["landmark_8"][0, 0] += 100
    assert relevant_snr([empty], [noisy])["landmark"] == np.inf
    noisy["landmark_8"][0, -1] += 1
    assert relevant_snr([empty], [noisy])["landmark"] < 20


def test_the_table_and_the_plot_name_the_worst_layers() -> None:
    costs = [LayerCost("stem", 40, 30, np.inf), LayerCost("points", np.inf, 50, 3, ap=0.0213)]
    table = to_markdown(costs, 1)
    assert "| points | exact | 50.0 | 3.0 | 0.0213 |" in table
    assert "stem" not in table
    pytest.importorskip("matplotlib")
    picture = cv2.imdecode(np.frombuffer(plot(costs, "int8"), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.std() > 10


def verdict(hard: float) -> Verdict:
    errors = np.array([0.05])
    return Verdict(Accuracy(0.9, 0.8, 0.6, errors), Accuracy(0.9, 0.8, hard, errors))


@pytest.mark.parametrize("needed", [1, 2, 3, 4, 5, 8])
def test_the_fewest_layers_stay_in_float(needed: int) -> None:
    layers = [f"layer{number}" for number in range(17)]
    tried: list[int] = []

    def judge(content: bytes) -> Verdict:
        kept = len(content.split())
        tried.append(kept)
        return verdict(0.6 if kept >= needed else 0.5)

    content, kept, passed = keep_worst_float(
        layers, lambda keep: " ".join(sorted(keep)).encode(), judge
    )
    assert kept == tuple(layers[:needed])
    assert content.split() == sorted(name.encode() for name in layers[:needed])
    assert passed.candidate.hard == 0.6
    assert len(tried) == len(set(tried)) <= 7


def test_half_in_float_is_the_most() -> None:
    layers = [f"layer{number}" for number in range(10)]
    with pytest.raises(AccuracyError, match=r"half of its layers in float, got .*hard 83\.33%"):
        keep_worst_float(layers, lambda keep: b"", lambda content: verdict(0.5))


def test_a_fallback_says_what_it_cost() -> None:
    fallback = Fallback(("boxes", "points"), 6.25, 5.0)
    assert str(fallback) == (
        "2 layers kept in float (boxes, points): 6.25 ms a frame instead of 5.00 (+1.25 ms)"
    )
    assert fallback.to_dict()["kept_float"] == ["boxes", "points"]


def test_timed_calls_take_turns() -> None:
    order: list[str] = []
    times = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3)
    rounds = [sorted(order[place : place + 4]) for place in range(0, len(order), 4)]
    assert rounds == [["a", "a", "b", "b"]] * (WARM_UP + 3)
    assert set(times) == {"a", "b"}
    assert all(value >= 0 for value in times.values())
