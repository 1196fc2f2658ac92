"""Measuring: turns, ratios, energy, pictures, fresh processes, curves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces
from edgeface.bench import comparison, energy, growth, growth_markdown, scenes, starting
from edgeface.bench.accuracy import recalled, stored
from edgeface.bench.candidates import Ours, Peer, find_ours, from_dict, to_dict
from edgeface.bench.comparison import compare
from edgeface.bench.growth import Point, crowds, measure
from edgeface.bench.markdown import to_markdown
from edgeface.bench.settings import Settings
from edgeface.bench.starting import measure_start
from edgeface.bench.timing import Ratio, Times, Turn, interleave
from edgeface.bundle import load_bundle
from edgeface.errors import (
    BackendUnavailableError,
    DatasetError,
    InferenceError,
    InvalidImageError,
    InvalidOptionError,
)
from edgeface.runtimes.base import backends
from edgeface.tuned import Measurement, recall, remember

MODEL = "retinaface_mobilenet025"
PICTURE = np.zeros((48, 64, 3), np.uint8)


class Stub:
    """A candidate that takes a while and finds what it is told to."""

    def __init__(self, name: str) -> None:
        self.name, self.threads, self.file = name, 1, name
        self.model, self.runs, self.profile = MODEL, ("onnxruntime", "fp32"), {}
        self.calls = 0

    def open(self, settings: Settings) -> Any:
        return self

    def __call__(self, image: NDArray[np.uint8]) -> Faces:
        self.calls += 1
        return Faces.empty()

    def close(self) -> None:
        pass


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(comparison, "to_dict", lambda one: {"name": one.name})
    monkeypatch.setattr(comparison, "stored", lambda *_: None)
    return [Stub("one"), Stub("other")]


def test_calls_take_turns_and_each_round_starts_with_another() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    rounds = list(interleave(calls, 3, warm_up=1, prepare=lambda name: order.append(name.upper())))
    turns = ["".join(order[place : place + 3]) for place in range(0, len(order), 3)]
    assert turns == [name.upper() + name + name for name in "cab" + "abc" + "bca" + "cab"]
    assert [set(taken) for taken in rounds] == [set("abc")] * 3


@pytest.mark.parametrize("rounds", [0, -1])
def test_no_round_is_refused(rounds: int) -> None:
    with pytest.raises(InvalidOptionError, match="at least 1 round"):
        next(interleave({"a": int}, rounds))


def test_percentiles() -> None:
    times = Times.of([Turn(float(ms), ms / 2) for ms in range(101)])
    assert times == Times(50.0, 90.0, 99.0, 25.0)


def test_a_ratio_is_paired_by_rounds() -> None:
    """A machine that slows down by ten meanwhile changes nothing."""
    rng = np.random.default_rng(0)
    load = np.linspace(1, 10, 60)
    fast = [Turn(ms, 1) for ms in load * rng.normal(1, 0.02, 60)]
    slow = [Turn(ms, 4) for ms in load * 2]
    ratio = Ratio.paired(fast, slow)
    assert ratio.low < ratio.median < ratio.high
    assert ratio.median == pytest.approx(0.5, abs=0.01)
    assert ratio.high - ratio.low < 0.02
    assert ratio.cpu == 0.25
    assert Ratio.paired(slow, [Turn(1.0, 0.0)] * 60).cpu == 0
    assert str(Ratio(0.5, 0.491, 0.509, 0.4)) == "0.50 (0.49–0.51), CPU 0.40"


@pytest.fixture
def powercap(tmp_path: Path) -> Callable[[str, int, int], Path]:
    def write(zone: str, microjoules: int, limit: int) -> Path:
        (tmp_path / zone).mkdir(exist_ok=True)
        (tmp_path / zone / "energy_uj").write_text(f"{microjoules}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text(f"{limit}\n")
        return tmp_path

    return write


def test_energy_of_packages_over_calls(powercap: Callable[[str, int, int], Path]) -> None:
    """Two packages, of which one counter wraps round; the cores inside a package count once."""
    zones = ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1")
    for zone, start in zip(zones, (0, 0, 9_000_000), strict=True):
        root = powercap(zone, start, 10_000_000)

    def call() -> None:
        powercap("intel-rapl:0", 2_000_000, 10_000_000)
        powercap("intel-rapl:0:0", 5_000_000, 10_000_000)
        powercap("intel-rapl:1", 500_000, 10_000_000)

    assert energy.readable(root)
    assert energy.joules_per_call(call, seconds=0, root=root) == pytest.approx(2.0 + 1.5)


def test_energy_that_cannot_be_read(tmp_path: Path) -> None:
    assert not energy.readable(tmp_path)
    assert energy.joules_per_call(int, seconds=0, root=tmp_path) is None


def test_a_comparison_is_written_whole(stubs: list[Any]) -> None:
    result = compare(stubs, PICTURE, "black", Settings(), rounds=4, starts=False)
    assert [stub.calls for stub in stubs] == [18, 18]
    record = json.loads(json.dumps(result.to_dict()))
    assert [row["name"] for row in record["candidates"]] == ["one", "other"]
    assert len(record["candidates"][0]["milliseconds"]["rounds"]) == 4
    assert record["candidates"][0]["ratios"]["one"]["median"] == 1
    text = to_markdown(result, stages=True)
    assert "4 interleaved rounds" in text
    assert "| other | – | – | – | – | – |" in text, "it tells no stages"


def test_an_interruption_keeps_whole_rounds(stubs: list[Any]) -> None:
    def interrupt(items: Any, _: str) -> Iterator[Any]:
        yield from items[:2]
        raise KeyboardInterrupt

    result = compare(stubs, PICTURE, "black", Settings(), rounds=9, track=interrupt)
    assert result.interrupted
    assert len(result.rounds) == 2
    assert "Interrupted" in to_markdown(result)
    assert result.to_dict()["interrupted"]


def test_an_interruption_before_the_first_round_is_one(stubs: list[Any]) -> None:
    def interrupt(items: Any, _: str) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        compare(stubs, PICTURE, "black", Settings(), rounds=9, track=interrupt)


def test_energy_is_in_the_table_where_it_can_be_read(
    stubs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "readable", lambda: True)
    monkeypatch.setattr(
        energy, "joules_per_call", lambda call: 0.25 if call() is not None else None
    )
    result = compare(stubs, PICTURE, "black", Settings(), rounds=1, starts=False)
    text = to_markdown(result)
    assert "| faces | J a picture |" in text and "| 0 | 0.250 |" in text
    assert "not readable" not in text


def test_the_share_of_stages(stubs: list[Any]) -> None:
    stubs[0].profile = {"read": 0.0, "preprocess": 0.5, "infer": 9.0, "postprocess": 0.5}
    result = compare(stubs, PICTURE, "black", Settings(), rounds=3, starts=False)
    text = to_markdown(result, stages=True)
    assert "| one | 0.000 | 0.500 | 9.000 | 0.500 | 10.0% |" in text
    assert "all but infer" not in to_markdown(result)


def test_combinations_that_come_to_the_same_are_listed_once() -> None:
    found, left_out = find_ours([MODEL], ["onnxruntime"], ["auto", "int8", "fp32"], [1], Settings())
    assert [one.name for one in found] == [
        f"{MODEL}, onnxruntime int8", f"{MODEL}, onnxruntime fp32"
    ]  # fmt: skip
    assert [one.runs for one in found] == [("onnxruntime", "int8"), ("onnxruntime", "fp32")]
    assert left_out == {}


def test_what_auto_takes_is_marked_and_nothing_is_listed_twice() -> None:
    found, left_out = find_ours([MODEL], [], ["auto"], [1], Settings())
    assert found[0].name.endswith(" (auto)")
    assert len({one.runs for one in found}) == len(found)
    assert {one.runs[0] for one in found} | set(left_out) == set(backends())


def test_without_any_backend_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Ours, settings: Settings) -> Any:
        raise BackendUnavailableError(f"no {self.backend} here")

    monkeypatch.setattr(Ours, "open", refuse)
    with pytest.raises(BackendUnavailableError, match="onnxruntime: no onnxruntime here"):
        find_ours([MODEL], [], ["auto"], [1], Settings())
    with pytest.raises(BackendUnavailableError, match="no tflite here"):
        find_ours([MODEL], ["tflite"], ["auto"], [1], Settings())


@pytest.mark.parametrize(
    "candidate", [Ours(MODEL, "tflite", "fp32", 2, "n", ("tflite", "fp32")), Peer("f", "opencv", 1)]
)
def test_candidates_survive_json(candidate: Any) -> None:
    again = from_dict(json.loads(json.dumps(to_dict(candidate))))
    assert again == candidate


def test_a_fresh_process_tells_its_start_and_memory() -> None:
    start = measure_start(
        Ours(MODEL, "onnxruntime", "fp32", 1, "ours"), PICTURE, Settings((64, 64)), frames=2
    )
    assert 0 < start.warm < 300 and 0 < start.cold < 300
    assert start.rss_mib is not None and start.peak_mib is not None
    assert 30 < start.rss_mib <= start.peak_mib + 1 < 500


def test_a_fresh_process_chooses_as_this_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    bundle = load_bundle(MODEL)
    remember(bundle, [Measurement("onnxruntime", None, "int8", False, 1, 640, 1.0, 1.0)])
    starting._keep_tuning(tmp_path / "other")
    here = recall(bundle)
    assert len(here) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert recall(bundle) == here


def test_a_process_that_fails_is_told() -> None:
    with pytest.raises(InferenceError, match=r"expected gone to run .*absent\.onnx"):
        measure_start(Peer("absent.onnx", "onnxruntime", 1, "gone"), PICTURE, Settings())


def test_average_precision_as_the_report_says() -> None:
    int8 = Ours(MODEL, "onnxruntime", "auto", 1, "ours", ("onnxruntime", "int8"))
    fp32 = Ours(MODEL, "openvino", "fp32", 1, "ours", ("openvino", "fp32"))
    small, large = (stored(fp32, size) for size in (640, None))
    assert small is not None and large is not None
    assert small.hard < large.hard
    assert stored(int8, 640) not in (None, small)
    assert stored(fp32, 320) is stored(fp32, (640, 480)) is None
    assert stored(Peer("f", "opencv", 1), 640) is None


def test_average_precision_of_an_earlier_run(tmp_path: Path) -> None:
    file = tmp_path / "earlier.json"
    figures = {"easy": 0.9, "medium": 0.8, "hard": 0.7, "source": "358 pictures"}
    rows = [{"name": "a", "accuracy": figures}, {"name": "b", "accuracy": None}]
    file.write_text(json.dumps({"candidates": rows}))
    assert recalled(file)["a"].hard == 0.7
    assert set(recalled(file)) == {"a"}
    for content in ("[]", "{", '{"candidates": [{"name": "a"}]}'):
        file.write_text(content)
        with pytest.raises(DatasetError, match="edgeface bench --json"):
            recalled(file)


def test_pictures_fit_their_size(astronaut: NDArray[np.uint8]) -> None:
    for size in ((640, 480), (100, 300), (1, 1)):
        assert scenes.fit(astronaut, size).shape == (size[1], size[0], 3)
    assert not scenes.fit(astronaut, (640, 480))[:, 480:].any()


def test_a_crowd_has_as_many_faces_as_asked(astronaut: NDArray[np.uint8]) -> None:
    with Detector("onnxruntime", precision="fp32", input_size=None, threads=1) as detector:
        face = scenes.cut_face(astronaut, detector)
        for count in (0, 1, 30):
            assert len(detector(scenes.crowd(face, (640, 480), count, 48))) == count
        with pytest.raises(InvalidImageError, match="with a face"):
            scenes.cut_face(np.zeros((64, 64, 3), np.uint8), detector)


def test_curves_are_measured_by_step(
    astronaut: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "CROWDED", (320, 240))
    monkeypatch.setattr(growth, "CROWDS", (0, 1, 9))
    ours = Ours(MODEL, "onnxruntime", "fp32", 1, "ours")
    face = growth.find_face(astronaut, ours)
    points = list(measure(list(crowds(ours, face)), 2, lambda items: items))
    assert [(one.step, one.faces) for one in points] == [("0", 0), ("1", 1), ("9", 9)]
    assert all(one.milliseconds > one.stages["infer"] > 0 for one in points)
    assert points[0].megapixels == pytest.approx(0.0768)


def test_flatness_is_judged_against_vga() -> None:
    def point(step: str, ms: float, megapixels: float) -> Point:
        return Point("ours", step, ms, ms, dict.fromkeys(comparison.STAGES, 0.0), 9, megapixels)

    flat = [point("640 x 480", 3.0, 0.3), point("1280 x 720", 9.9, 0.9)]
    steep = [*flat, point("1920 x 1080", 30.0, 2.0)]
    worst, where = growth_markdown.departure(flat, lambda one: one.milliseconds)
    assert (worst, where) == (pytest.approx(0.1), "1280 x 720")
    result = growth.Growth(5, {growth.WHOLE: steep})
    assert (
        "NOT flat within 20% of 640 x 480; the largest departure is 50% at 1920 x 1080"
        in growth_markdown.to_markdown(result, "p")
    )
    result.curves[growth.WHOLE] = flat
    assert "ours: flat within 20% of" in growth_markdown.to_markdown(result, "p")


def test_an_interrupted_growth_keeps_whole_curves(
    astronaut: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    point = SimpleNamespace(candidate="ours")

    def measure_one(steps: Any, rounds: int, track: Any) -> list[Any]:
        if steps[0].batch == steps[0].candidate.threads == 1 and steps[0].name == "0":
            raise KeyboardInterrupt
        return [point]

    monkeypatch.setattr(growth, "measure", measure_one)
    ours = Ours(MODEL, "onnxruntime", "fp32", 1, "ours")
    result = growth.grow([ours], astronaut, rounds=1)
    assert result.interrupted
    assert list(result.curves) == [growth.WHOLE, growth.SHRUNK]
