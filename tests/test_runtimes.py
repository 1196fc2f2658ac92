"""ONNX Runtime and OpenVINO on a tiny graph whose outputs numpy can compute; every error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.errors import (
    InferenceError,
    InvalidImageError,
    ModelIntegrityError,
)
from edgeface.runtimes import openvino
from edgeface.runtimes.base import Outputs, Runtime, RuntimeOptions, load

ANY_SIZE = ("onnxruntime", "openvino")
STRIDES = (8, 16)
MEAN = np.array([104, 117, 123], np.float32)
COLUMNS = {"logit": 1, "delta": 4, "landmark": 10}
ANCHORS = 2


def weights(kind: str, stride: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(100 * stride + COLUMNS[kind])
    return rng.normal(0, 0.02, (ANCHORS * COLUMNS[kind], 3)).astype(np.float32)


def expected(frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """What ``graph`` computes: means over cells, times weights."""
    outputs = {}
    count, height, width, _ = frames.shape
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        cells = (frames - MEAN).reshape(count, rows, stride, columns, stride, 3)
        for kind, values in COLUMNS.items():
            products = cells.mean(axis=(2, 4)) @ weights(kind, stride).T
            outputs[f"{kind}_{stride}"] = products.reshape(count, -1, values)
    return outputs


def graph(input_name: str = "image", strides: tuple[int, ...] = STRIDES, rows: int = -1) -> bytes:
    """An ONNX file that obeys the graph contract; ``rows`` fixes how many rows outputs have."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {"mean": MEAN}
    nodes = [
        helper.make_node("Cast", [input_name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["nchw"], perm=[0, 3, 1, 2]),
    ]
    outputs = []
    for stride in strides:
        cells, sides = f"cells_{stride}", [stride, stride]
        pool = {"kernel_shape": sides, "strides": sides}
        nodes.append(helper.make_node("AveragePool", ["nchw"], [cells], **pool))
        for kind, columns in COLUMNS.items():
            name = f"{kind}_{stride}"
            constants[f"w_{name}"] = weights(kind, stride)[:, :, None, None]
            constants[f"s_{name}"] = np.array([0, rows, columns], np.int64)
            nodes += [
                helper.make_node("Conv", [cells, f"w_{name}"], [f"c_{name}"]),
                helper.make_node("Transpose", [f"c_{name}"], [f"t_{name}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"t_{name}", f"s_{name}"], [name]),
            ]
            shape = ["n", f"rows_{stride}", columns]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    inputs = [helper.make_tensor_value_info(input_name, TensorProto.UINT8, ["n", "h", "w", 3])]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "tiny", inputs, outputs, tensors)
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())


def options(**changes: Any) -> RuntimeOptions:
    defaults = {"input_size": None, "input_sizes": (), "exact": True, "threads": 1}
    return RuntimeOptions(**{**defaults, "cache_key": "tiny", **changes})


def noise(height: int, width: int, count: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_right(outputs: Outputs, frames: NDArray[np.uint8]) -> None:
    wanted = expected(frames)
    assert set(outputs) == set(wanted)
    for name, value in wanted.items():
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], value, atol=2e-5, err_msg=name)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edgeface" / "openvino"


@pytest.fixture(params=ANY_SIZE)
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    loaded = load(request.param, graph(), options())
    yield loaded
    loaded.close()


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (80, 16), (16, 160), (480, 640)])
@pytest.mark.parametrize("count", [1, 2])
def test_outputs_are_right(runtime: Runtime, size: tuple[int, int], count: int) -> None:
    frames = noise(*size, count=count)
    assert_right(runtime.infer(frames), frames)


def test_outputs_stay_right_over_many_shapes(runtime: Runtime) -> None:
    heights = [16 * n for n in range(1, 10)]
    for height in [*heights, *reversed(heights)]:
        frames = noise(height, 64, seed=height)
        assert_right(runtime.infer(frames), frames)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_a_fixed_size_does_not_forbid_others(name: str) -> None:
    runtime = load(name, graph(), options(input_size=(64, 32)))
    for frames in (noise(32, 64), noise(64, 32), noise(32, 64, count=3)):
        assert_right(runtime.infer(frames), frames)


def test_threads_share_a_runtime(runtime: Runtime) -> None:
    """Each thread's outputs still hold after all other threads have run."""
    count = 4
    barrier = threading.Barrier(count)

    def work(seed: int) -> None:
        for turn in range(5):
            frames = noise(32, 32 * (1 + turn % 2), seed=seed)
            barrier.wait(timeout=30)
            outputs = runtime.infer(frames)
            barrier.wait(timeout=30)
            assert_right(outputs, frames)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def test_frames_are_only_read(runtime: Runtime) -> None:
    frames = noise(32, 32)
    before = frames.copy()
    frames.setflags(write=False)
    assert_right(runtime.infer(frames), before)
    np.testing.assert_array_equal(frames, before)


def test_frames_come_writable_or_not_at_any_shape(runtime: Runtime) -> None:
    for turn in range(1, 12):
        frames = noise(16 * turn, 32, seed=turn)
        frames.setflags(write=turn % 2 == 0)
        assert_right(runtime.infer(frames), frames)


def test_a_result_outlives_its_runtime(runtime: Runtime) -> None:
    frames = noise(64, 64)
    outputs = runtime.infer(frames)
    runtime.close()
    assert_right(outputs, frames)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ANY_SIZE)
def test_describe_tells_what_runs(name: str, threads: int) -> None:
    facts = load(name, graph(), options(threads=threads)).describe()
    assert facts["version"][0].isdigit()
    assert facts["device"]
    assert facts["threads"] == str(threads)


def test_exact_openvino_runs_float32() -> None:
    assert load("openvino", graph(), options(exact=True)).describe()["precision"] == "f32"


@pytest.mark.parametrize(
    "frames",
    [
        noise(32, 32)[0],
        noise(32, 32).astype(np.float32),
        noise(32, 32)[..., :1],
        noise(32, 64)[:, :, ::2],
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((1, 0, 32, 3), np.uint8),
        None,
        [[1]],
    ],
    ids=["3d", "float", "grey", "strided", "no frame", "no row", "none", "list"],
)
def test_bad_frames_are_refused(runtime: Runtime, frames: Any) -> None:
    with pytest.raises(InvalidImageError, match=r"expected contiguous uint8 .* got .*; letterbox"):
        runtime.infer(frames)


@pytest.mark.parametrize("name", ANY_SIZE)
def test_a_static_model_refuses_other_sizes(name: str) -> None:
    runtime = load(name, graph(), options(input_sizes=((64, 32), (32, 32))))
    assert_right(runtime.infer(noise(32, 64)), noise(32, 64))
    with pytest.raises(InvalidImageError, match=r"expected frames of 64x32, 32x32, got 32x64"):
        runtime.infer(noise(64, 32))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tflite"])
@pytest.mark.parametrize("data", [b"", b"no model" * 50, graph()[:500]], ids=["0", "text", "cut"])
def test_damaged_models_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(ModelIntegrityError, match=rf"model that '{name}' can load, got: .+; rein"):
        load(name, data, options())


@pytest.mark.parametrize("name", ANY_SIZE)
def test_a_graph_that_breaks_the_contract_is_refused(name: str) -> None:
    with pytest.raises(
        ModelIntegrityError, match=r"^expected a graph from 'image' to logit_\*.* got one from pix"
    ):
        load(name, graph(input_name="pixels"), options())


@pytest.mark.parametrize("name", ANY_SIZE)
def test_a_native_failure_is_an_error_and_the_runtime_goes_on(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rows_at_32 = ANCHORS * (32 // 8) ** 2
    runtime = load(name, graph(strides=(8,), rows=rows_at_32), options())
    with pytest.raises(InferenceError, match=rf"'{name}' to run frames of shape \(1, 64, 64, 3\)"):
        runtime.infer(noise(64, 64))
    outputs = runtime.infer(noise(32, 32))
    np.testing.assert_allclose(outputs["delta_8"], expected(noise(32, 32))["delta_8"], atol=2e-5)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ANY_SIZE)
def test_a_closed_runtime_says_so(name: str) -> None:
    runtime = load(name, graph(), options())
    runtime.infer(noise(32, 32))
    runtime.close()
    runtime.close()
    with pytest.raises(InferenceError, match="got a closed one"):
        runtime.infer(noise(32, 32))


def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every compiled graph that OpenVINO's runtime puts into the cache."""
    kept: list[Any] = []
    original = openvino.cache.remember

    def remember(kind: str, *key: object, data: bytes) -> None:
        if kind == "openvino":
            kept.append(key)
        original(kind, *key, data=data)

    monkeypatch.setattr(openvino.cache, "remember", remember)
    return kept


def test_openvino_compiles_once_per_shape_and_option(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compilations(monkeypatch)
    frames = noise(32, 64)
    for changes in ({}, {"threads": 2}, {"cache_key": "other"}):
        before = len(compiled)
        for _ in range(2):
            assert_right(load("openvino", graph(), options(**changes)).infer(frames), frames)
            assert len(compiled) == before + 1


def test_openvino_keeps_static_graphs_for_single_frames_beside_batches() -> None:
    runtime: Any = load("openvino", graph(), options())
    sides = (32, 64, 96, 128, 160)
    for count in (4, 1):
        shapes = [(count, side, 32, 3) for side in sides]
        assert [runtime.prepare(shape) for shape in shapes] == [*shapes[:4], (-1, -1, -1, 3)]


@pytest.mark.parametrize("damage", [b"", b"no graph" * 100])
def test_openvino_compiles_again_where_its_cache_is_damaged(
    cache_folder: Path, damage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compilations(monkeypatch)
    frames = noise(32, 32)
    load("openvino", graph(), options()).infer(frames)
    openvino.cache.remember("openvino", *compiled[0], data=damage)
    assert_right(load("openvino", graph(), options()).infer(frames), frames)
    assert len(compiled) == 3


def test_openvino_needs_no_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_right(load("openvino", graph(), options()).infer(noise(32, 32)), noise(32, 32))


RUN_DEFAULT_BACKEND = """
import json, pathlib, sys
from edgeface.runtimes.base import RuntimeOptions, load
data = pathlib.Path(sys.argv[1]).read_bytes()
load("onnxruntime", data, RuntimeOptions(None, (), True, 1, "tiny"))
print(json.dumps(sorted(sys.modules)))
"""


def test_the_default_backend_loads_no_other_and_reports_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(graph())
    home = tmp_path / "home"
    home.mkdir()
    # The wheel keeps silent by itself where it sees a CI system or a test.
    kept = {"PATH", "LD_LIBRARY_PATH", "PYTHONPATH"} & set(os.environ)
    environment = {name: os.environ[name] for name in kept} | {"HOME": str(home)}
    child = subprocess.run(
        [sys.executable, "-c", RUN_DEFAULT_BACKEND, str(tmp_path / "tiny.onnx")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert child.stderr == ""
    assert {"openvino", "ai_edge_litert", "torch", "onnx"}.isdisjoint(json.loads(child.stdout))
    assert [path for path in home.rglob("*") if "onnxruntime" in path.name] == []
