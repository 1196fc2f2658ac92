"""One detector, many threads; closing while busy; fork and spawn."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Detector, Faces
from edgeface.errors import InferenceError
from edgeface.runtimes.base import BACKENDS

THREADS, CALLS = 8, 1000
PORTRAIT = Path(__file__).parents[2] / "docs" / "astronaut.jpg"


@pytest.fixture(params=["onnxruntime", "openvino", "tflite"])
def detector(request: pytest.FixtureRequest) -> Iterator[Detector]:
    if not BACKENDS[request.param].installed_package():
        pytest.skip(BACKENDS[request.param].missing())
    with Detector(request.param, input_size=96, score_threshold=0.02, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    """Parts of the portrait at several frame sizes."""
    portrait = np.asarray(cv2.imread(str(PORTRAIT)), np.uint8)
    corners = [(0, 0), (0, 200), (100, 0), (100, 200)]
    parts = [portrait[top : top + 256, left : left + 256] for top, left in corners]
    return [
        np.asarray(cv2.resize(part, (96, 64 + 32 * number)), np.uint8)
        for number, part in enumerate(parts)
    ]


def same(one: Faces, other: Faces) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("boxes", "scores", "landmarks")
    )


def test_eight_threads_find_what_one_finds(
    detector: Detector, pictures: list[NDArray[np.uint8]]
) -> None:
    serial = [detector(picture) for picture in pictures]
    assert any(len(faces) for faces in serial)

    def work(first: int) -> int:
        return sum(
            same(detector(pictures[number % len(pictures)]), serial[number % len(pictures)])
            for number in range(first, first + CALLS)
        )

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [CALLS] * THREADS


def test_closing_while_busy_ends_every_thread_in_a_typed_error(
    detector: Detector, pictures: list[NDArray[np.uint8]]
) -> None:
    started = threading.Barrier(THREADS + 1)
    endings: list[BaseException] = []

    def work() -> None:
        started.wait()
        try:
            while True:
                detector(pictures[0])
        except BaseException as error:
            endings.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    started.wait()
    detector.close()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert [type(error) for error in endings] == [InferenceError] * THREADS


SCRIPT = f"""
import multiprocessing, sys
from edgeface import Detector

def find(picture):
    with Detector("onnxruntime", input_size=320, threads=1) as detector:
        return len(detector(picture))

if __name__ == "__main__":
    with Detector("onnxruntime", input_size=320, threads=1) as detector:
        assert len(detector({str(PORTRAIT)!r})) == 1
        context = multiprocessing.get_context(sys.argv[1])
        with context.Pool(2) as pool:
            assert pool.map(find, [{str(PORTRAIT)!r}] * 4, chunksize=1) == [1] * 4
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_process_with_its_own_detector_detects(method: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), method]
    subprocess.run(command, check=True, timeout=100, cwd=tmp_path)


def test_a_forked_child_that_uses_its_parents_detector_is_told() -> None:
    code = f"""
import os, sys
from edgeface import Detector
from edgeface.errors import InferenceError
detector = Detector("onnxruntime", input_size=320, threads=1)
detector({str(PORTRAIT)!r})
child = os.fork()
if child == 0:
    try:
        detector({str(PORTRAIT)!r})
    except InferenceError as error:
        os._exit(0 if "fork" in str(error) else 2)
    os._exit(3)
_, status = os.waitpid(child, 0)
assert len(detector({str(PORTRAIT)!r})) == 1
sys.exit(os.waitstatus_to_exitcode(status))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
