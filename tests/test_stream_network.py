"""Streams over the network, from servers on this machine, and from a camera that is not there."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Faces
from edgeface.capture import Watchdog
from edgeface.errors import StreamError
from edgeface.stream import StreamResult, open_stream


def grey(value: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def no_faces(image: NDArray[np.uint8]) -> Faces:
    return Faces.empty()


def level(result: StreamResult) -> int:
    return round(float(result.frame.mean()))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class MjpegServer:
    """Serves motion JPEG; the n-th connection sends the n-th script, then ends.

    A script has JPEG bytes to send and events to wait for.
    """

    def __init__(self, scripts: Sequence[Sequence[bytes | threading.Event]]) -> None:
        self.connections = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                number = min(outer.connections, len(scripts) - 1)
                outer.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for jpeg in scripts[number]:
                    if isinstance(jpeg, threading.Event):
                        jpeg.wait(10)
                        continue
                    head = b"--frame\r\nContent-Type: image/jpeg\r\n"
                    length = b"Content-Length: %d\r\n\r\n" % len(jpeg)
                    try:
                        self.wfile.write(head + length + jpeg + b"\r\n")
                    except OSError:
                        return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/camera.mjpg"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def jpeg(value: int, width: int = 64) -> bytes:
    return bytes(cv2.imencode(".jpg", grey(value, width))[1])


def test_a_network_camera_that_breaks_off_and_comes_back() -> None:
    first = [jpeg(value) for value in range(10, 100, 10)]
    first[4] = first[4][: len(first[4]) // 2]
    first[5] = b"noise"
    first[-2:] = [jpeg(80, width=96), jpeg(90, width=96)]
    second = [jpeg(value, width=96) for value in range(150, 240, 10)]
    server = MjpegServer([first, second])
    levels: list[int] = []
    widths: list[int] = []
    watchdog = Watchdog(timeout=0.3, open_timeout=5, retries=5)
    try:
        with open_stream(no_faces, server.url, "every", watchdog=watchdog) as stream:
            for result in stream:
                levels.append(level(result))
                widths.append(result.frame.shape[1])
                if levels[-1] >= 200:
                    break
            assert stream.stats.reconnects == 1
    finally:
        server.close()
    assert levels == pytest.approx(
        [10, 20, 30, 40, 70, 80, 90, 150, 160, 170, 180, 190, 200], abs=2
    )
    assert widths == [64] * 7 + [96] * 6


def test_a_network_camera_that_falls_silent_is_let_go_of() -> None:
    silent = threading.Event()
    first = [jpeg(value) for value in range(10, 100, 10)]
    second = [jpeg(value) for value in range(150, 240, 10)]
    server = MjpegServer([[*first, silent], [*second, silent]])
    watchdog = Watchdog(timeout=0.4, open_timeout=5)
    try:
        with open_stream(no_faces, server.url, "every", watchdog=watchdog) as stream:
            while level(next(stream)) < 140:
                pass
            assert stream.stats.reconnects == 1
            captures = [t for t in threading.enumerate() if t.name == "edgeface-capture"]
            assert len(captures) == 1, "OpenCV was given no time limit for a frame"
    finally:
        silent.set()
        server.close()


def test_a_recording_behind_a_url_ends(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 48)
    )
    for value in range(0, 120, 20):
        writer.write(grey(value))
    writer.release()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/clip.avi"
        with open_stream(no_faces, url, "every") as stream:
            results = list(stream)
        server.shutdown()
    assert [round(result.timestamp, 3) for result in results] == [0, 0.05, 0.1, 0.15, 0.2, 0.25]
    assert stream.stats.reconnects == 0


@pytest.fixture
def silence() -> Iterator[str]:
    """The address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/camera.mjpg"


def test_a_url_that_never_answers_is_an_error(silence: str) -> None:
    started = time.monotonic()
    with (
        open_stream(no_faces, silence, watchdog=Watchdog(open_timeout=0.5)) as stream,
        pytest.raises(StreamError, match=r"expected to open http.*camera\.mjpg"),
    ):
        next(stream)
    assert time.monotonic() - started < 3


def test_close_while_opencv_waits_for_a_silent_server(silence: str) -> None:
    stream = open_stream(no_faces, silence, watchdog=Watchdog(open_timeout=2))
    loop = threading.Thread(target=lambda: list(stream))
    loop.start()
    wait_until(lambda: any(t.name == "edgeface-capture" for t in threading.enumerate()))
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 1
    loop.join(1)
    assert not loop.is_alive()


def test_no_such_camera() -> None:
    with open_stream(no_faces, 97) as stream, pytest.raises(StreamError, match="the camera 97"):
        next(stream)


def test_a_process_ends_while_opencv_waits(silence: str) -> None:
    """A thread that hangs in native code is left behind, and takes nothing down with it."""
    code = f"""
import threading
from edgeface import Faces
from edgeface.stream import open_stream
stream = open_stream(lambda image: Faces.empty(), {silence!r})
threading.Thread(target=lambda: list(stream), daemon=True).start()
while not any(thread.name == "edgeface-capture" for thread in threading.enumerate()):
    pass
print("main ends")
"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "main ends\n"), done.stderr
    assert time.monotonic() - started < 9, "it waited for the capture's 10 s"
