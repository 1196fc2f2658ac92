"""What is kept of a tuning, and what is chosen from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeface import cache, tuned
from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.bundle import Artifact, Bundle
from edgeface.tuned import Measurement, fastest

BUNDLE = Bundle(
    "m",
    "m",
    Path(),
    AnchorSpec((AnchorLevel(32, (64.0,)),)),
    (Artifact("onnx", "fp32", "a.onnx", "0"),),
)


def row(
    backend: str, ms: float, precision: str = "int8", threads: int = 1, **more: object
) -> Measurement:
    known = {"exact": False, "input_size": 640, "ratio": ms / 5.0}
    return Measurement(backend, "1.0", precision, threads=threads, ms=ms, **{**known, **more})  # type: ignore[arg-type]


FAST, SLOW = row("openvino", 5.0), row("tflite", 9.0)
WRONG = row("onnxruntime", 2.0, problem="it differs from the reference")
CRASHED = Measurement("onnxruntime", "1.0", "fp32", False, 1, 640, problem="it crashed")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edgeface" / "tune"


def test_the_fastest_comes_first_and_what_must_not_be_chosen_last() -> None:
    assert fastest([WRONG, SLOW, CRASHED, FAST], "auto", 640, None) == [FAST, SLOW, WRONG, CRASHED]
    assert fastest([], "auto", 640, None) == []


def test_a_named_precision_takes_exact_trials_of_it_alone() -> None:
    lowered, exact = row("openvino", 5.0, "fp32"), row("openvino", 9.0, "fp32", exact=True)
    int8 = row("openvino", 4.0, "int8", exact=True)
    rows = [lowered, exact, int8]
    assert fastest(rows, "auto", 640, None) == [lowered]
    assert fastest(rows, "fp32", 640, None) == [exact]
    assert fastest(rows, "int8", 640, None) == [int8]
    assert fastest(rows, "fp16", 640, None) == []


def test_named_threads_restrict_and_the_nearest_stands_for_others() -> None:
    one, four = row("openvino", 5.0, threads=1), row("tflite", 4.0, threads=4)
    assert fastest([one, four], "auto", 640, None) == [four, one]
    assert fastest([one, four], "auto", 640, 1) == [one]
    assert fastest([one, four], "auto", 640, 9) == [four]


def test_of_equally_fast_trials_the_one_with_fewer_threads_goes_first() -> None:
    one, two = row("openvino", 5.1, threads=1), row("openvino", 5.0, threads=2)
    assert fastest([two, one], "auto", 640, None)[0] == one
    slower = row("openvino", 5.4, threads=1)
    assert fastest([two, slower], "auto", 640, None)[0] == two


def test_a_size_that_was_not_measured_goes_by_the_nearest() -> None:
    small, large = row("tflite", 2.0, input_size=320), row("openvino", 9.0, input_size=(1280, 736))
    for size, expected in ((320, small), (400, small), (1000, large), ((1280, 736), large)):
        assert fastest([small, large], "auto", size, None) == [expected]  # type: ignore[arg-type]
    own = row("onnxruntime", 3.0, input_size=None)
    assert fastest([small, own], "auto", None, None) == [own]
    assert fastest([small], "auto", None, None) == [small]


def test_rows_come_back_as_they_were() -> None:
    rows = (FAST, WRONG, CRASHED, row("tflite", 7.0, input_size=(640, 480)))
    tuned.remember(BUNDLE, rows)
    assert set(tuned.recall(BUNDLE)) == set(rows)


def test_other_sizes_stay_and_the_same_size_is_replaced() -> None:
    small = row("tflite", 2.0, input_size=320)
    tuned.remember(BUNDLE, [small, FAST])
    tuned.remember(BUNDLE, [SLOW])
    assert tuned.recall(BUNDLE) == (small, SLOW)


def test_forget() -> None:
    tuned.forget(BUNDLE)
    tuned.remember(BUNDLE, [FAST])
    tuned.forget(BUNDLE)
    assert tuned.recall(BUNDLE) == ()


def test_another_model_or_machine_has_rows_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned.remember(BUNDLE, [FAST])
    other = replace(BUNDLE, artifacts=(replace(BUNDLE.artifacts[0], sha256="1"),))
    assert tuned.recall(other) == ()
    here = tuned.host()
    monkeypatch.setattr(tuned, "host", lambda: replace(here, cores=here.cores + 1))
    assert tuned.recall(BUNDLE) == ()
    monkeypatch.setattr(tuned, "host", lambda: here)
    assert tuned.recall(BUNDLE) == (FAST,)
    monkeypatch.setattr(tuned, "cpu_signature", lambda: "another CPU")
    assert tuned.recall(BUNDLE) == ()


@pytest.mark.parametrize("damage", [b"", b"{", b"0" * 64 + b"\n[]"])
def test_a_damaged_file_counts_as_absent(home: Path, damage: bytes) -> None:
    tuned.remember(BUNDLE, [FAST])
    [entry] = home.iterdir()
    entry.write_bytes(damage)
    assert tuned.recall(BUNDLE) == ()


@pytest.mark.parametrize(
    "data", [b"{}", b'[{"backend": "x"}]', b"7", b'[{"input_size": 1, "z": 2}]']
)
def test_another_layout_counts_as_absent(data: bytes) -> None:
    cache.remember("tune", *tuned._key(BUNDLE), data=data)
    assert tuned.recall(BUNDLE) == ()


def test_words() -> None:
    assert str(FAST) == "5.0 ms, the fastest"
    assert str(SLOW) == "9.0 ms, 1.80 x the fastest"
    assert str(WRONG) == "2.0 ms, it differs from the reference"
    assert str(CRASHED) == "it crashed"
    assert row("tflite", 1, "fp32", threads=2, exact=True).name == "fp32 exact, 2 threads"
    assert row("tflite", 1).name == "int8, 1 thread"
