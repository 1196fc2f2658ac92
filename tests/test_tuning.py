"""``edgeface tune`` on ONNX Runtime and plug-ins that are fast, die, hang or find other faces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgeface
from edgeface import Detector, Faces, tuned
from edgeface.bundle import load_bundle
from edgeface.cli.main import main
from edgeface.errors import BackendUnavailableError, InvalidImageError, InvalidOptionError
from edgeface.hardware import host
from edgeface.runtimes import base, child, probe
from edgeface.runtimes.base import BACKENDS
from edgeface.tuning import Tuning, measure
from edgeface.tuning.agreement import disagreement, tolerance
from edgeface.tuning.drawing import drawn_faces
from edgeface.tuning.trial import Trial, usual_threads
from edgeface.tuning.workers import ratios

MODEL = "retinaface_mobilenet025"
DESCRIPTION = """
from edgeface.runtimes.base import Backend
BACKEND = Backend("{name}", "{name}_runtime", ("{name}",), "", ("onnx",), accepts=("fp32",))
"""
RUNTIME = """
import os, signal, time
import numpy as np
from edgeface.runtimes import onnxruntime

def probe():
    return "1.0"

def load(data, options):
    return Wrapped(onnxruntime.load(data, options))

class Wrapped:
    def __init__(self, inner):
        self.inner, self.kept = inner, {{}}
    def infer(self, frames):
        small = frames.shape[1] <= 64
        {behaviour}
    def describe(self):
        return {{"version": "1.0", "device": "imagination"}}
    def close(self):
        self.inner.close()
"""
BEHAVIOURS = {
    "swift": """
        key = frames[0, 96:192].tobytes()
        if key not in self.kept:
            values = self.inner.infer(frames)
            self.kept[key] = {name: value.copy() for name, value in values.items()}
        return self.kept[key]""",
    "dying": """
        if not small: os.kill(os.getpid(), signal.SIGILL)
        return self.inner.infer(frames)""",
    "hanging": """
        if not small: time.sleep(1000)
        return self.inner.infer(frames)""",
    "blind": """
        return {name: value - 100 for name, value in self.inner.infer(frames).items()}""",
    "failing": """
        if not small: raise RuntimeError("out of NPU memory")
        return self.inner.infer(frames)""",
}


@pytest.fixture(autouse=True)
def cache_folder(own_cache: Path) -> Path:
    return own_cache / "tune"


@pytest.fixture
def install(
    install_plugin: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Install the named plug-ins, and let ``tune`` try them and ONNX Runtime alone."""

    def install(*names: str) -> None:
        for name in names:
            files = {
                f"{name}.py": DESCRIPTION.format(name=name),
                f"{name}_runtime.py": RUNTIME.format(behaviour=BEHAVIOURS[name].strip()),
            }
            install_plugin(name, f"{name} = {name}:BACKEND", files)
        found = base.backends()
        tried = {name: found[name] for name in ("onnxruntime", *names)}
        monkeypatch.setattr(measure, "backends", lambda: tried)

    return install


def rows(tuning: Tuning, backend: str) -> list[tuned.Measurement]:
    return [one for one in tuning.measured if one.backend == backend]


def test_the_fastest_that_agrees_wins_and_the_others_say_why_not(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(child, "STALL", 3.0)
    install("swift", "dying", "hanging", "blind", "failing")
    tuning = edgeface.tune(threads=[1], rounds=3)
    assert tuning.reference == "onnxruntime fp32"
    best = tuning.best()
    assert best is not None and (best.backend, best.ratio) == ("swift", 1.0)
    for name, reason in (
        ("dying", "SIGILL"),
        ("hanging", "it hung: it did nothing for 3 s"),
        ("blind", "of 8 faces it misses 8"),
        ("failing", "out of NPU memory"),
    ):
        for row in rows(tuning, name):
            assert reason in row.problem
            assert not row.works
    assert all(one.ms for one in rows(tuning, "blind")), "wrong faces are timed all the same"
    assert all(one.works for one in rows(tuning, "onnxruntime"))
    assert "of 8 faces it misses 8" in str(tuning)

    with Detector() as detector:
        explained = detector.explain()
    assert explained.backend == "swift"
    assert explained.why == f"measured here, fp32, 1 thread: {best.ms:.1f} ms, the fastest"
    assert explained.threads == 1
    assert "measured    blind, fp32, 1 thread, long side 640" in str(explained)
    others = {one.backend: one for one in explained.others}
    assert (
        "ms, " in others["onnxruntime"].reason and "x the fastest" in others["onnxruntime"].reason
    )

    for file in (tmp_path / "site").glob("swift-1.0.dist-info/*"):
        file.unlink()
    (tmp_path / "site" / "swift-1.0.dist-info").rmdir()
    with Detector() as detector:
        explained = detector.explain()
    assert explained.backend == "onnxruntime"
    [gone] = [one for one in explained.others if one.backend == "swift"]
    assert gone.reason.startswith("its plug-in is no longer installed; measured here, fp32")


def remember(*backends: str) -> None:
    """Pretend that these were measured, the fastest first."""
    measured = [
        tuned.Measurement(
            name, probe.probe(name).version, "fp32", False, 1, 640, 5.0 + place, 1.0 + place
        )
        for place, name in enumerate(backends)
    ]
    tuned.remember(load_bundle(MODEL), measured)


def test_auto_takes_the_next_where_the_winner_was_uninstalled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remember("tflite", "onnxruntime")
    with Detector() as detector:
        assert detector.explain().backend == "tflite"
        assert detector.explain().threads == 1
    original = base.find_spec
    monkeypatch.setattr(
        base,
        "find_spec",
        lambda name: None if "litert" in name or "tflite" in name else original(name),
    )
    with Detector() as detector:
        explained = detector.explain()
    assert explained.backend == "onnxruntime"
    assert "measured here, fp32, 1 thread: 6.0 ms" in explained.why
    assert "cannot run  tflite: the package 'ai_edge_litert' is not installed" in str(explained)
    assert "measured here, fp32, 1 thread: 5.0 ms, the fastest" in str(explained)


def test_auto_takes_the_next_where_the_winner_does_not_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remember("tflite", "onnxruntime")
    from edgeface.runtimes import tflite

    def load(*_: object) -> None:
        raise BackendUnavailableError("expected the delegate, got none")

    monkeypatch.setattr(tflite, "load", load)
    with pytest.warns(UserWarning, match="runs on 'onnxruntime', because tflite: expected the del"):
        detector = Detector()
    assert "tflite: expected the delegate" in str(detector.explain())


def test_the_callers_own_options_restrict_what_was_measured() -> None:
    remember("tflite", "onnxruntime")
    with Detector("onnxruntime") as detector:
        assert detector.explain().precision == "fp32", "as it was measured, not int8 as usual"
        assert detector.explain().why.startswith("as named; measured here")
    with Detector("onnxruntime", precision="int8", threads=2) as detector:
        explained = detector.explain()
    assert (explained.precision, explained.threads) == ("int8", 2)


def test_one_picture_per_thread_goes_by_what_one_thread_took() -> None:
    remember("onnxruntime", "tflite")
    kept = tuned.recall(load_bundle(MODEL))
    both = replace(kept[0], threads=2), replace(kept[0], ms=9.0, ratio=9.0), kept[1]
    tuned.remember(load_bundle(MODEL), both)
    with Detector(threads=2) as detector:
        assert detector.explain().backend == "onnxruntime"
    with Detector(threads=2, mode="throughput") as detector:
        assert (detector.explain().backend, detector.explain().threads) == ("tflite", 2)


def test_an_interrupt_keeps_nothing_and_leaves_no_process(
    install: Callable[..., None], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    started: list[child.Child] = []
    original = child.Child.__init__

    def remembering(self: child.Child, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        started.append(self)

    monkeypatch.setattr(child.Child, "__init__", remembering)

    def interrupted(steps: Sequence[Any], phase: str) -> Iterable[Any]:
        yield steps[0]
        if phase == "measure":
            raise KeyboardInterrupt
        yield from steps[1:]

    with pytest.raises(KeyboardInterrupt):
        edgeface.tune(threads=[1], rounds=5, progress=interrupted)
    assert len(started) == 2
    assert all(one._process.poll() is not None for one in started)
    assert not cache_folder.exists()


def test_the_command(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str], cache_folder: Path
) -> None:
    install()
    sizes = ["--input-size", "320", "320x256", "--threads", "1", "--rounds", "1"]
    assert main(["tune", *sizes, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["model", "pictures", "reference", "unavailable", "measured", "auto"]
    assert {tuple(one["input_size"]) if isinstance(one["input_size"], list) else one["input_size"]
            for one in report["measured"]} == {320, (320, 256)}  # fmt: skip
    assert [one["backend"] for one in report["auto"]] == ["onnxruntime", "onnxruntime"]
    assert main(["tune", "--input-size", "320", "--threads", "1", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert 'Detector("auto") takes onnxruntime' in printed
    assert "eight drawn faces" in printed
    main(["doctor"])
    assert "measured: onnxruntime" in capsys.readouterr().out
    assert main(["tune", "--forget"]) == 0
    assert list(cache_folder.iterdir()) == []


def test_pictures_without_a_face_are_refused(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    install()
    with pytest.raises(InvalidImageError, match="expected pictures with faces"):
        edgeface.tune(images=[np.zeros((64, 64, 3), np.uint8)], threads=[1], rounds=1)
    assert main(["tune", "--image", "nonesuch.jpg"]) == 1
    assert "nonesuch.jpg" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        {"rounds": 0},
        {"threads": [0]},
        {"threads": []},
        {"threads": [True]},
        {"input_sizes": []},
        {"input_sizes": [-1]},
        {"images": []},
    ],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError):
        edgeface.tune(**options)


def test_without_a_backend_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = probe.Verdict("onnxruntime", False, "1", "it crashed with SIGILL")
    monkeypatch.setattr(measure, "backends", lambda: {"onnxruntime": BACKENDS["onnxruntime"]})
    monkeypatch.setattr(measure, "probe", lambda name, refresh: verdict)
    with pytest.raises(BackendUnavailableError, match="onnxruntime: it crashed with SIGILL"):
        edgeface.tune()


def test_the_model_finds_the_drawn_faces() -> None:
    picture = drawn_faces()
    assert picture.shape == (480, 640, 3)
    assert np.array_equal(picture, drawn_faces())
    with Detector("onnxruntime", precision="fp32") as detector:
        assert len(detector(picture)) == 8


def test_usual_threads() -> None:
    machine = replace(host(), cores=6, core_types=())
    assert usual_threads(machine) == [1, 2, 4]
    assert usual_threads(replace(machine, cores=64)) == [1, 2, 4, 8]
    assert usual_threads(replace(machine, cores=3)) == [1, 2, 3]
    assert usual_threads(replace(machine, cores=1)) == [1]


def trial(name: str) -> Trial:
    return Trial(name, "fp32", True, 1, 640)


def test_ratios_are_those_of_the_rounds_not_of_the_medians() -> None:
    """Half of the rounds are disturbed, and slow for all alike."""
    a, b = trial("a"), trial("b")
    times = {a: [1.0, 9.0, 1.0, 10.0], b: [2.0, 18.0, 2.0, 20.0]}
    assert ratios(times, [a, b]) == pytest.approx({a: 1, b: 2})
    assert ratios(times, [b]) == pytest.approx({a: 0.5, b: 1}), "of what may be chosen"
    assert ratios({}, []) == {}


def some_faces(count: int) -> Faces:
    corners = np.arange(count, dtype=np.float32)[:, None] * 50
    boxes = np.hstack([corners, corners, corners + 40, corners + 40]).astype(np.float32)
    landmarks = np.repeat(corners[:, None] + 20, 5, axis=1).repeat(2, axis=2).astype(np.float32)
    return Faces(boxes, np.full(count, 0.9, np.float32), landmarks)


def changed(faces: Faces, **columns: NDArray[np.float32]) -> Faces:
    return Faces(
        **{"boxes": faces.boxes, "scores": faces.scores, "landmarks": faces.landmarks, **columns}
    )  # type: ignore[arg-type]


def test_agreement() -> None:
    exact, int8 = tolerance("fp32", True), tolerance("int8", True)
    known = some_faces(4)
    assert disagreement([known], [known], exact) == ""
    assert "misses 1, adds 0" in disagreement([known[:3]], [known], exact)
    assert "misses 0, adds 1" in disagreement([known], [known[:3]], exact)
    assert "misses 4, adds 0" in disagreement([Faces.empty()], [known], exact)
    for other in (
        changed(known, boxes=known.boxes + 2),
        changed(known, scores=known.scores - 0.1),
        changed(known, landmarks=known.landmarks + 2),  # type: ignore[operator]
    ):
        assert disagreement([other], [known], exact)
        assert disagreement([other], [known], int8) == ""
    assert disagreement([changed(known, boxes=known.boxes + 20)], [known], int8)


def test_a_stray_near_the_threshold_among_many_is_no_disagreement() -> None:
    many = some_faces(40)
    assert disagreement([many[1:]], [many], tolerance("int8", True)) == ""
    assert disagreement([many[4:]], [many], tolerance("int8", True))


def test_faces_below_the_threshold_may_come_and_go() -> None:
    known = some_faces(4)
    weak = changed(known, scores=np.array([0.9, 0.9, 0.9, 0.35], np.float32))
    assert disagreement([weak[:3]], [weak], tolerance("fp32", True)) == ""
