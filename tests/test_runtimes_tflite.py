"""LiteRT on a tiny file written here: means over cells of 8 x 8 pixels."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.errors import InferenceError, InvalidImageError, ModelIntegrityError
from edgeface.runtimes.base import RuntimeOptions, load

CELL = 8
ANY = (None, None)
Sizes = tuple[tuple[int | None, int | None], ...]


def expected(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    count, height, width, _ = frames.shape
    cells = frames.reshape(count, height // CELL, CELL, width // CELL, CELL, 3)
    means: NDArray[np.float32] = cells.astype(np.float32).mean(axis=(2, 4))
    return means.reshape(count, -1, 1)


def tflite_file(*sizes: tuple[int | None, int | None], input_name: str = "image") -> bytes:
    """A TFLite file with a signature per (width, height); ANY makes one for every size."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def make(kind: str, **fields: Any) -> Any:
        table = getattr(schema, f"{kind}T")()
        vars(table).update(fields)
        return table

    operators, options, types = schema.BuiltinOperator, schema.BuiltinOptions, schema.TensorType
    codes = [operators.CAST, operators.AVERAGE_POOL_2D, operators.RESHAPE]
    target = np.array([1, -1, 1], np.int32)
    subgraphs, signatures = [], []
    for index, (width, height) in enumerate(sizes):
        image = [1, height or 4 * CELL, width or 4 * CELL, 3]
        cells = [1, image[1] // CELL, image[2] // CELL, 3]
        tensors = [
            make("Tensor", shape=image, type=types.UINT8, name=b"image"),
            make("Tensor", shape=image, type=types.FLOAT32, name=b"float"),
            make("Tensor", shape=cells, type=types.FLOAT32, name=b"cells"),
            make("Tensor", shape=[3], type=types.INT32, name=b"target", buffer=1),
            make("Tensor", shape=[1, int(np.prod(cells)), 1], type=types.FLOAT32, name=b"logit"),
        ]
        if width is None:
            tensors[0].shapeSignature = [1, -1, -1, 3]
        pool = make(
            "Pool2DOptions",
            padding=1,
            strideW=CELL,
            strideH=CELL,
            filterWidth=CELL,
            filterHeight=CELL,
        )
        steps = [
            make("Operator", opcodeIndex=0, inputs=[0], outputs=[1]),
            make(
                "Operator",
                opcodeIndex=1,
                inputs=[1],
                outputs=[2],
                builtinOptions=pool,
                builtinOptionsType=options.Pool2DOptions,
            ),
            make("Operator", opcodeIndex=2, inputs=[2, 3], outputs=[4]),
        ]
        subgraphs.append(
            make("SubGraph", tensors=tensors, inputs=[0], outputs=[4], operators=steps)
        )
        signatures.append(
            make(
                "SignatureDef",
                signatureKey=f"size_{width}x{height}",
                subgraphIndex=index,
                inputs=[make("TensorMap", name=input_name, tensorIndex=0)],
                outputs=[make("TensorMap", name="logit_8", tensorIndex=4)],
            )
        )
    buffers = [make("Buffer"), make("Buffer", data=np.frombuffer(target.tobytes(), np.uint8))]
    model = make(
        "Model",
        version=3,
        operatorCodes=[
            make("OperatorCode", builtinCode=code, deprecatedBuiltinCode=code) for code in codes
        ],
        subgraphs=subgraphs,
        signatureDefs=signatures,
        buffers=buffers,
    )
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def options(**changes: Any) -> RuntimeOptions:
    defaults = {"input_size": None, "input_sizes": (), "exact": True, "threads": 1}
    return RuntimeOptions(**{**defaults, "cache_key": "tiny", **changes})


def noise(height: int, width: int, count: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_right(runtime: Any, frames: NDArray[np.uint8]) -> None:
    outputs = runtime.infer(frames)
    assert list(outputs) == ["logit_8"]
    np.testing.assert_allclose(outputs["logit_8"], expected(frames), atol=1e-3)


def test_a_resizable_file_takes_any_size() -> None:
    runtime = load("tflite", tflite_file(ANY), options())
    for size in [(32, 32), (16, 64), (64, 16), (8, 8), (480, 640), (32, 32)]:
        assert_right(runtime, noise(*size))


def test_a_static_file_picks_the_signature_of_the_size() -> None:
    sizes = ((64, 32), (32, 64), (16, 16))
    runtime = load("tflite", tflite_file(*sizes), options(input_sizes=sizes))
    for width, height in [*sizes, *reversed(sizes)]:
        assert_right(runtime, noise(height, width))
    with pytest.raises(InvalidImageError, match=r"expected frames of 64x32, 32x64, 16x16, got 8x"):
        runtime.infer(noise(16, 8))


def test_a_batch_runs_frame_by_frame() -> None:
    runtime = load("tflite", tflite_file(ANY), options())
    assert_right(runtime, noise(24, 40, count=3))


def test_a_static_file_without_declared_sizes_still_refuses_others() -> None:
    runtime = load("tflite", tflite_file((32, 32)), options())
    assert_right(runtime, noise(32, 32))
    with pytest.raises(InvalidImageError, match="expected frames of 32x32, got 64x32"):
        runtime.infer(noise(32, 64))


def test_a_manifest_that_promises_other_sizes_is_refused() -> None:
    with pytest.raises(ModelIntegrityError, match=r"signatures for frames of \[\(64, 64\)\], got"):
        load("tflite", tflite_file((32, 32)), options(input_sizes=((32, 32), (64, 64))))


def test_a_file_that_breaks_the_contract_is_refused() -> None:
    with pytest.raises(ModelIntegrityError, match=r"from 'image' to logit_.* got one from pix"):
        load("tflite", tflite_file(ANY, input_name="pixels"), options())


def test_a_native_failure_is_an_error_and_the_runtime_goes_on() -> None:
    class Broken:
        def __call__(self, **inputs: Any) -> Any:
            raise RuntimeError("failed to\nprepare")

    runtime: Any = load("tflite", tflite_file(ANY), options())
    working = runtime._idle.get()
    runtime._idle.put({None: Broken()})
    with pytest.raises(
        InferenceError, match=r"frames of shape \(1, 16, 8, 3\), got: failed to pre"
    ):
        runtime.infer(noise(16, 8))
    runtime._idle.get()
    runtime._idle.put(working)
    assert_right(runtime, noise(16, 8))


def test_threads_share_a_runtime() -> None:
    runtime = load("tflite", tflite_file(ANY), options())

    def work(seed: int) -> None:
        for turn in range(10):
            assert_right(runtime, noise(32, 32 * (1 + turn % 2), seed=seed))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_frames_are_only_read() -> None:
    frames = noise(32, 32)
    frames.setflags(write=False)
    assert_right(load("tflite", tflite_file(ANY), options()), frames)


def test_bad_frames_are_refused() -> None:
    runtime = load("tflite", tflite_file(ANY), options())
    for frames in (noise(32, 32)[0], noise(32, 32).astype(np.float32), noise(32, 32)[:, ::2]):
        with pytest.raises(InvalidImageError, match="expected contiguous uint8"):
            runtime.infer(frames)


def test_a_closed_runtime_says_so() -> None:
    runtime = load("tflite", tflite_file(ANY), options())
    assert_right(runtime, noise(32, 32))
    runtime.close()
    runtime.close()
    with pytest.raises(InferenceError, match="got a closed one"):
        runtime.infer(noise(32, 32))


def test_describe_tells_what_runs() -> None:
    facts = load("tflite", tflite_file(ANY), options(threads=2)).describe()
    assert facts["version"][0].isdigit()
    assert facts["threads"] == "2"
