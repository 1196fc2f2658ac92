"""The facade on a fake runtime whose faces are known, and on the model that ships."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import tracemalloc
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces, startup
from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.bundle import Artifact, Bundle, write_manifest
from edgeface.errors import (
    BackendUnavailableError,
    InferenceError,
    InvalidImageError,
    InvalidOptionError,
    MissingDependencyError,
    ModelIntegrityError,
    ModelNotFoundError,
    NumericalError,
)
from edgeface.runtimes.base import RuntimeOptions
from edgeface.runtimes.probe import Verdict

STRIDE, SIDE = 32, 64.0


@dataclass
class BrightCells:
    """A runtime that finds one face of 64 x 64 pixels at each cell of 32 pixels that is white."""

    options: RuntimeOptions
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    pause: float = 0
    busy: int = 0
    closed: int = 0

    def infer(self, frames: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        self.busy += 1
        assert self.busy == 1, "two calls at once"
        assert frames.dtype == np.uint8
        assert frames.flags.c_contiguous
        self.shapes.append(frames.shape)
        self.frames.append(frames)
        time.sleep(self.pause)
        centres = frames[0, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
        lit = (centres == 255).all(-1).reshape(1, -1, 1)
        self.busy -= 1
        return {
            "logit_32": np.where(lit, 4, -9).astype(np.float32),
            "delta_32": np.zeros((1, lit.size, 4), np.float32),
            "landmark_32": np.zeros((1, lit.size, 10), np.float32),
        }

    def describe(self) -> Mapping[str, str]:
        return {"version": "1.2.3", "device": "imagination"}

    def close(self) -> None:
        self.closed += 1


@dataclass
class Bench:
    """Backends of which a test says which are there, and what they do when they load."""

    verdicts: dict[str, Verdict]
    load_errors: dict[str, Exception] = field(default_factory=dict)
    loaded: list[tuple[str, BrightCells]] = field(default_factory=list)

    def probe(self, name: str, refresh: bool = False) -> Verdict:
        return self.verdicts[name]

    def load(self, name: str, data: bytes, options: RuntimeOptions) -> BrightCells:
        if name in self.load_errors:
            raise self.load_errors[name]
        self.loaded.append((name, BrightCells(options)))
        return self.loaded[-1][1]

    @property
    def runtime(self) -> BrightCells:
        return self.loaded[-1][1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    absent = "the package is not installed; install it with: pip install 'edgeface[x]'"
    fake = Bench(
        {
            "onnxruntime": Verdict("onnxruntime", True, "1", ""),
            "openvino": Verdict("openvino", True, "1", ""),
            "tflite": Verdict("tflite", False, None, absent),
            "tensorrt": Verdict("tensorrt", False, None, absent),
            "tensorrt-rtx": Verdict("tensorrt-rtx", False, None, absent),
        }
    )
    monkeypatch.setattr(startup, "probe", fake.probe)
    monkeypatch.setattr(startup, "load", fake.load)
    monkeypatch.setattr(startup, "host", lambda: HOST)
    return fake


HOST = replace(startup.host(), machine="x86_64", nvidia=False, cores=16, core_types=())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path, Artifact("onnx", "fp32", "m.onnx", sha256(b"model").hexdigest()))


def make_model(folder: Path, *artifacts: Artifact) -> Path:
    anchors = AnchorSpec((AnchorLevel(STRIDE, (SIDE,)),))
    for artifact in artifacts:
        (folder / artifact.file).write_bytes(b"model")
    write_manifest(Bundle("fake", "fake", folder, anchors, artifacts, (7, 8, 9)))
    return folder


def scene(width: int = 320, height: int = 224) -> NDArray[np.uint8]:
    """One white cell, at column 2 and row 3."""
    image = np.zeros((height, width, 3), np.uint8)
    image[96:128, 64:96] = 255
    return image


BOX = [48, 80, 112, 144]


@pytest.fixture
def detector(bench: Bench, model: Path) -> Iterator[Detector]:
    with Detector(model=model) as detector:
        yield detector


def test_finds_the_face(detector: Detector) -> None:
    faces = detector(scene())
    assert isinstance(faces, Faces)
    assert faces.boxes.tolist() == [BOX]
    assert faces.scores[0] == pytest.approx(1 / (1 + np.exp(-4)))


def test_no_face_is_empty(detector: Detector) -> None:
    faces = detector(np.zeros((50, 50, 3), np.uint8))
    assert len(faces) == 0
    assert faces.boxes.shape == (0, 4)


def test_every_kind_of_picture(detector: Detector, tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), scene())
    wide = np.repeat(scene(), 2, axis=1)
    sources = [path, str(path), path.read_bytes(), scene()[..., 0], wide[:, ::2]]
    sources += [pil.fromarray(scene()), np.dstack([scene(), scene()[..., 0]])]
    for source in sources:
        assert detector(source).boxes.tolist() == [BOX]
    assert [faces.boxes.tolist() for faces in detector(sources)] == [[BOX]] * len(sources)
    assert [faces.boxes.tolist() for faces in detector(tuple(sources))] == [[BOX]] * len(sources)
    assert detector([]) == []


def test_color(detector: Detector, bench: Bench) -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    detector(red, color="rgb")
    assert bench.runtime.frames[-1][0, 0, 0].tolist() == [0, 0, 200]
    detector(red)
    assert bench.runtime.frames[-1][0, 0, 0].tolist() == [200, 0, 0]
    with pytest.raises(InvalidOptionError, match="'bgr' or 'rgb'"):
        detector([], color="xyz")


@pytest.mark.parametrize(
    ("input_size", "shape"),
    [
        (640, (1, 480, 640, 3)),
        (None, (1, 960, 1280, 3)),
        ((320, 320), (1, 320, 320, 3)),
        (600, (1, 480, 608, 3)),
    ],
)
def test_input_size(input_size: object, shape: tuple[int, ...], bench: Bench, model: Path) -> None:
    image = cv2.resize(scene(320, 240), (1280, 960), interpolation=cv2.INTER_NEAREST)
    with Detector(model=model, input_size=input_size) as detector:
        faces = detector(image)
    assert bench.runtime.shapes == [shape]
    assert len(faces) > 0
    assert bench.runtime.options.input_size == (input_size if shape[1] == 320 else None)


def test_letterbox_uses_the_models_pad_value(detector: Detector, bench: Bench) -> None:
    detector(np.zeros((10, 10, 3), np.uint8))
    assert bench.runtime.frames[0][0, -1, -1].tolist() == [7, 8, 9]


def test_the_callers_array_is_never_written_to(detector: Detector, bench: Bench) -> None:
    fits, smaller = scene(64, 64), np.full((60, 60, 3), 99, np.uint8)
    before = fits.copy()
    detector(fits)
    assert np.shares_memory(bench.runtime.frames[-1], fits)
    detector(smaller)
    detector(smaller)
    assert np.array_equal(fits, before)
    assert (smaller == 99).all()


def test_the_buffer_is_reused(detector: Detector, bench: Bench) -> None:
    for _ in range(2):
        detector(scene(300, 200))
    detector(scene(320, 224))
    detector(scene(300, 200))
    first, second, _, last = bench.runtime.frames
    assert first is second is last


def test_thresholds_and_max_faces(bench: Bench, model: Path) -> None:
    image = scene()
    image[96:128, 192:224] = 255
    for options, count in (
        ({}, 2),
        ({"max_faces": 1}, 1),
        ({"score_threshold": 0.99}, 0),
        ({"score_threshold": 1}, 0),
    ):
        assert len(Detector(model=model, **options)(image)) == count
    image[96:128, 96:128] = 255
    assert len(Detector(model=model, nms_threshold=0.4)(image)) == 3
    assert len(Detector(model=model, nms_threshold=0.3)(image)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "cuda"}, "'openvino'.*got 'cuda'"),
        ({"precision": "int4"}, "'int8'.*got 'int4'"),
        ({"input_size": 0}, "input_size.*got 0"),
        ({"input_size": "large"}, "input_size.*got 'large'"),
        ({"input_size": (640, 481)}, r"stride 32, got 640x481; use \(640, 512\)"),
        ({"score_threshold": 1.1}, "score_threshold between 0 and 1, got 1.1"),
        ({"score_threshold": float("nan")}, "score_threshold"),
        ({"nms_threshold": -0.1}, "nms_threshold"),
        ({"nms_threshold": "0.4"}, "nms_threshold"),
        ({"max_faces": 0}, "max_faces.*got 0"),
        ({"max_faces": 2.0}, "max_faces"),
        ({"threads": -1}, "threads"),
        ({"threads": True}, "threads"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, bench: Bench, model: Path) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        Detector(**{"model": model} | options)
    assert bench.loaded == []


def test_wrong_models(bench: Bench, model: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="got 'nonesuch'"):
        Detector(model="nonesuch")
    with pytest.raises(ModelNotFoundError, match="no openvino or onnx artifact of precision int8"):
        Detector("openvino", model=model, precision="int8")
    with pytest.raises(ModelNotFoundError, match="it has onnx fp32"):
        Detector(model=model, precision="int8")
    (model / "m.onnx").write_bytes(b"another")
    for backend in ("auto", "onnxruntime"):
        with pytest.raises(ModelIntegrityError, match="expected sha256"):
            Detector(backend, model=model)
    assert bench.loaded == []


def test_precision_says_how_exact(bench: Bench, model: Path) -> None:
    Detector(model=model)
    assert not bench.runtime.options.exact
    Detector(model=model, precision="fp32")
    assert bench.runtime.options.exact


def test_threads(bench: Bench, model: Path) -> None:
    Detector(model=model)
    assert bench.runtime.options.threads == 4
    Detector(model=model, threads=9)
    assert bench.runtime.options.threads == 9


def test_auto_takes_the_best(bench: Bench, model: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Detector(model=model)
        bench.verdicts["openvino"] = bench.verdicts["tflite"]
        Detector(model=model)
    assert [name for name, _ in bench.loaded] == ["openvino", "onnxruntime"]


def test_auto_falls_back_with_one_warning(bench: Bench, model: Path) -> None:
    bench.verdicts["openvino"] = Verdict("openvino", False, "1", "it crashed with SIGILL")
    with pytest.warns(UserWarning, match="on 'onnxruntime'.*SIGILL") as caught:
        detector = Detector(model=model)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "cannot run  openvino: it crashed with SIGILL" in str(detector.explain())


def test_auto_falls_back_when_loading_fails(bench: Bench, model: Path) -> None:
    bench.load_errors["openvino"] = ModelIntegrityError("an unknown operator")
    with pytest.warns(UserWarning, match="unknown operator"):
        detector = Detector(model=model)
    assert detector.explain().backend == "onnxruntime"
    assert "unknown operator" in str(detector.explain())
    bench.load_errors["onnxruntime"] = BackendUnavailableError("no memory")
    with pytest.raises(BackendUnavailableError, match=r"unknown operator.*no memory"):
        Detector(model=model)


def test_a_named_backend_is_never_replaced(bench: Bench, model: Path) -> None:
    with pytest.raises(MissingDependencyError, match="pip install"):
        Detector("tflite", model=model)
    bench.verdicts["openvino"] = Verdict("openvino", False, "1", "it crashed with SIGILL")
    with pytest.raises(BackendUnavailableError, match="SIGILL"):
        Detector("openvino", model=model)
    bench.load_errors["onnxruntime"] = ModelIntegrityError("an unknown operator")
    with pytest.raises(ModelIntegrityError, match="unknown operator"):
        Detector("onnxruntime", model=model)
    assert bench.loaded == []


def test_a_named_backend_is_probed_again_before_it_is_refused(
    bench: Bench, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(name: str, refresh: bool = False) -> Verdict:
        return Verdict(name, refresh, "1", "it hung")

    monkeypatch.setattr(startup, "probe", probe)
    assert Detector("openvino", model=model).explain().backend == "openvino"


def test_static_models(bench: Bench, tmp_path: Path) -> None:
    digest = sha256(b"model").hexdigest()
    model = make_model(
        tmp_path, Artifact("onnx", "fp32", "m.onnx", digest, ((320, 320), (320, 224)))
    )
    with Detector("onnxruntime", model=model) as detector:
        assert detector(scene()).boxes.tolist() == [BOX]
        detector(scene(3200, 3200))
    assert bench.runtime.shapes == [(1, 224, 320, 3), (1, 320, 320, 3)]
    assert bench.runtime.options.input_sizes == ((320, 320), (320, 224))
    for backend in ("auto", "onnxruntime"):
        with pytest.raises(InvalidOptionError, match="input_size 320x320, 320x224 only"):
            Detector(backend, model=model, input_size=(640, 640))


def test_explain(bench: Bench, model: Path) -> None:
    told = Detector(model=model, input_size=(320, 224), threads=3).explain()
    assert (told.model, told.backend, told.precision) == ("fake", "openvino", "fp32")
    assert (told.input_size, told.threads) == ((320, 224), 3)
    others = ["onnxruntime", "tflite", "tensorrt", "tensorrt-rtx"]
    assert [other.backend for other in told.others] == others
    text = str(told)
    for part in ("fake", "x86", "320x224", "1.2.3", "imagination", "could run", "pip install"):
        assert part in text
    assert "as named" in str(Detector("onnxruntime", model=model, input_size=None).explain())


def test_profile(detector: Detector) -> None:
    assert detector.profile == {}
    detector(scene())
    assert list(detector.profile) == ["read", "preprocess", "infer", "postprocess"]
    assert all(stage > 0 for stage in detector.profile.values())


def test_close(bench: Bench, model: Path) -> None:
    with Detector(model=model) as detector:
        detector(scene())
    detector.close()
    assert bench.runtime.closed == 1
    with pytest.raises(InferenceError, match="closed"):
        detector(scene())


def test_bad_pictures_leave_it_usable(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    for wrong in (
        tmp_path / "bad.jpg",
        tmp_path,
        "missing.png",
        b"",
        np.zeros((2, 2)),
        None,
        [None],
    ):
        with pytest.raises(InvalidImageError):
            detector(wrong)
    assert detector(scene()).boxes.tolist() == [BOX]
    assert len(detector(np.zeros((1, 1, 3), np.uint8))) == 0


def test_threads_take_turns(detector: Detector, bench: Bench) -> None:
    bench.runtime.pause = 0.002
    pictures = {size: scene(size, size) for size in (160, 200, 320)}
    wrong: list[object] = []

    def work(size: int) -> None:
        for _ in range(10):
            try:
                boxes = detector(pictures[size]).boxes.tolist()
            except BaseException as error:
                wrong.append(error)
            else:
                wrong.extend([] if boxes == [BOX] else [boxes])

    threads = [threading.Thread(target=work, args=(size,)) for size in pictures for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_memory_stays_level(detector: Detector, bench: Bench) -> None:
    image = scene(300, 200)
    for _ in range(50):
        detector(image)
        bench.runtime.frames.clear()
    tracemalloc.start()
    try:
        for _ in range(200):
            detector(image)
            bench.runtime.frames.clear()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 100_000


# The model that ships.


@pytest.fixture(scope="module")
def shipped() -> Iterator[Detector]:
    with Detector("onnxruntime", precision="fp32") as detector:
        yield detector


def test_the_astronaut(shipped: Detector, astronaut: NDArray[np.uint8]) -> None:
    faces = shipped(astronaut)
    assert len(faces) == 1
    face = faces[0]
    assert face.score > 0.9
    assert face.box == pytest.approx([178, 54, 271, 179], abs=12)
    expected = [[202, 102], [248, 104], [224, 129], [202, 140], [244, 142]]
    assert face.landmarks == pytest.approx(np.array(expected), abs=8)
    assert json.loads(faces.to_json())["faces"][0]["score"] > 0.9


def test_channel_order_and_layouts_agree(shipped: Detector, astronaut: NDArray[np.uint8]) -> None:
    expected = shipped(astronaut)
    flipped = astronaut[..., ::-1]
    for faces in (shipped(flipped, color="rgb"), shipped(flipped.copy(), color="rgb")):
        assert faces.boxes == pytest.approx(expected.boxes, abs=1e-3)
    grey = shipped(cv2.cvtColor(astronaut, cv2.COLOR_BGR2GRAY))
    assert grey.boxes == pytest.approx(expected.boxes, abs=12)


@pytest.mark.parametrize("scale", [0.5, 1.7, 3])
@pytest.mark.parametrize("input_size", [640, None, (640, 640), 320])
def test_boxes_are_in_pixels_of_the_picture(
    scale: float, input_size: object, astronaut: NDArray[np.uint8]
) -> None:
    picture = cv2.resize(astronaut[:, 60:400], None, fx=scale, fy=scale)
    with Detector("onnxruntime", input_size=input_size) as detector:
        faces = detector(picture)
    best = faces[0].box / scale + [60, 0, 60, 0]
    assert best == pytest.approx([178, 54, 271, 179], abs=14)


def test_auto_on_this_machine(astronaut: NDArray[np.uint8], shipped: Detector) -> None:
    with Detector() as detector:
        faces = detector(astronaut)
    assert faces.boxes == pytest.approx(shipped(astronaut).boxes, abs=3)


class BrokenRuntime(BrightCells):
    """Fails on every frame."""

    def infer(self, frames: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        raise InferenceError("expected 'openvino' to run frames, got: out of memory")


def break_first(bench: Bench, kind: type[BrightCells]) -> None:
    good = bench.load

    def load(name: str, data: bytes, options: RuntimeOptions) -> BrightCells:
        if name != "openvino":
            return good(name, data, options)
        bench.loaded.append((name, kind(options)))
        return bench.runtime

    bench.load = load  # type: ignore[method-assign]


def test_auto_goes_on_when_its_backend_fails_on_a_frame(
    bench: Bench, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_first(bench, BrokenRuntime)
    monkeypatch.setattr(startup, "load", bench.load)
    with Detector(model=model) as detector:
        assert detector.explain().backend == "openvino"
        with pytest.warns(UserWarning, match=r"runs on 'onnxruntime'.*out of memory") as told:
            faces = detector(scene())
        assert len(told) == 1
        np.testing.assert_allclose(faces.boxes, [BOX])
        assert detector.explain().backend == "onnxruntime"
        assert detector.faults[InferenceError] == 1
        assert "out of memory" in str(detector.explain())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(detector(scene())) == 1
        assert bench.loaded[0][1].closed == 1


def test_a_named_backend_that_fails_on_a_frame_raises(
    bench: Bench, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_first(bench, BrokenRuntime)
    monkeypatch.setattr(startup, "load", bench.load)
    with Detector("openvino", model=model) as detector:
        for _ in range(2):
            with pytest.raises(InferenceError, match="out of memory"):
                detector(scene())
        assert detector.faults[InferenceError] == 2
        assert [name for name, _ in bench.loaded] == ["openvino"]


def test_auto_without_another_backend_raises_the_failure(
    bench: Bench, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_first(bench, BrokenRuntime)
    monkeypatch.setattr(startup, "load", bench.load)
    bench.verdicts["onnxruntime"] = Verdict("onnxruntime", False, "1", "it crashed")
    with Detector(model=model) as detector, pytest.raises(InferenceError, match="out of memory"):
        detector(scene())


@pytest.mark.parametrize("output", ["logit_32", "delta_32", "landmark_32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_are_counted_and_left_out(
    output: str, value: float, bench: Bench, model: Path
) -> None:
    class Unsound(BrightCells):
        def infer(self, frames: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
            outputs = dict(super().infer(frames))
            outputs[output] = np.full_like(outputs[output], value)
            return outputs

    with Detector("openvino", model=model) as detector:
        detector._pipeline.runtime = Unsound(bench.runtime.options)
        with (
            pytest.warns(NumericalError, match="precision='fp32'")
            if counted(output, value)
            else contextlib.nullcontext()
        ):
            faces = detector(scene())
        assert len(faces) == 0
        detector(scene())
        assert detector.faults[NumericalError] == (2 if counted(output, value) else 0)


def counted(output: str, value: float) -> bool:
    """A logit of minus infinity is a sound "no face"."""
    return not (output == "logit_32" and value == -np.inf)


def test_real_backends_take_over_within_five_seconds(
    astronaut: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Detector(threads=1) as detector:
        first = detector.explain().backend
        if first == "onnxruntime":
            pytest.skip("no second backend is installed")
        [expected] = detector(astronaut)

        def fail(frames: NDArray[np.uint8]) -> Any:
            raise InferenceError("expected a device, got: it was lost")

        monkeypatch.setattr(detector._pipeline.runtime, "infer", fail)
        started = time.monotonic()
        with pytest.warns(UserWarning, match="it was lost"):
            [face] = detector(astronaut)
        assert time.monotonic() - started < 5
        assert detector.explain().backend != first
        np.testing.assert_allclose(face.box, expected.box, atol=3)
