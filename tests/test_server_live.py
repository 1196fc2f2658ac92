"""``edgeface serve`` as a process: its live stream, its socket, its end."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from fastapi.testclient import TestClient

import edgeface.server.live as live_module
from edgeface.cli.main import main
from edgeface.cli.serve import address, is_loopback
from edgeface.errors import StreamError
from edgeface.faces import Faces
from edgeface.server.app import create_app
from edgeface.server.live import Live, source_name
from edgeface.server.stats import BINS, Stats

BOX_COLOR = (80, 220, 60)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def put_threshold(url: str, value: float) -> None:
    body, kind = json.dumps({"value": value}).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/threshold", body, kind, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def read_part(stream: http.client.HTTPResponse) -> np.ndarray:
    """Read the next picture of an MJPEG stream."""
    length = 0
    while line := stream.readline().strip():
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    image = cv2.imdecode(np.frombuffer(stream.read(length), np.uint8), cv2.IMREAD_COLOR)
    assert stream.readline() == b"\r\n"
    assert stream.readline().startswith(b"--")
    return image


def has_box(image: np.ndarray) -> bool:
    return bool((np.abs(image.astype(int) - BOX_COLOR).max(2) < 25).sum() > 200)


def test_live_stream_and_threshold(serve: Callable[..., Any], astronaut_clip: Path) -> None:
    url = serve(str(astronaut_clip), "--backend", "onnxruntime").address
    with urllib.request.urlopen(f"{url}/stream.mjpg", timeout=10) as stream:
        kind = stream.headers["content-type"]
        assert stream.readline().decode().strip() == "--" + kind.partition("boundary=")[2]
        image = read_part(stream)
        assert image.shape == (480, 640, 3)
        assert has_box(image)

        put_threshold(url, 1.0)
        until(lambda: not has_box(read_part(stream)))
        put_threshold(url, 0.5)
        until(lambda: has_box(read_part(stream)))
        assert not np.array_equal(read_part(stream), image)

    # Recordings start again: more frames than the clip has, none of them lost to an error.
    stats = until(lambda: (now := get(f"{url}/stats"))["frames"] + now["dropped"] > 60 and now)
    assert stats["source"] == "astronaut.mp4"
    assert stats["state"] == "running"
    assert stats["size"] == [640, 480]
    assert stats["fps"] > 0
    until(lambda: get(f"{url}/stats")["viewers"] == 0)
    assert get(f"{url}/health") == {"status": "ok"}


def test_ctrl_c_ends_it_within_a_second(serve: Callable[..., Any], astronaut_clip: Path) -> None:
    def seconds_to_end() -> float:
        served = serve(str(astronaut_clip), "--backend", "onnxruntime")
        with urllib.request.urlopen(f"{served.address}/stream.mjpg", timeout=10) as stream:
            stream.readline()
            read_part(stream)
            begun = time.monotonic()
            served.process.send_signal(signal.SIGINT)
            while stream.read(1 << 16):
                pass
        out, err = served.process.communicate(timeout=20)
        assert (served.process.returncode, out, err) == (0, "edgeface: stopped\n", "")
        return time.monotonic() - begun

    # On a machine that is busy with other work, one attempt may take longer.
    assert any(seconds_to_end() < 1.0 for _ in range(3))


def test_viewer_that_stops_reading_is_dropped(
    serve: Callable[..., Any], astronaut_clip: Path
) -> None:
    patch = "import edgeface.server.run as run; run.UNREAD_SECONDS = 1"
    url = serve(str(astronaut_clip), "--backend", "onnxruntime", patch=patch).address
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as viewer:
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        viewer.connect((host, int(port)))
        viewer.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: get(f"{url}/stats")["viewers"] == 1)
        until(lambda: get(f"{url}/stats")["viewers"] == 0, 60)


def test_client_that_never_asks_is_dropped(serve: Callable[..., Any]) -> None:
    patch = "import edgeface.server.run as run; run.HEAD_SECONDS = 0.2"
    url = serve("--backend", "onnxruntime", patch=patch).address
    host, port = url.removeprefix("http://").split(":")
    for begun in (b"", b"GET / HTTP/1.1\r\nHost:"):
        with socket.create_connection((host, int(port)), timeout=10) as silent:
            silent.sendall(begun)
            assert silent.recv(100) == b""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{url}/stream.mjpg")


def test_upload_that_is_too_large_gets_its_answer(serve: Callable[..., Any]) -> None:
    url = serve("--backend", "onnxruntime", "--max-megabytes", "1").address
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/detect", bytes(3_000_000), timeout=10)
    assert refused.value.code == 413


def test_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    assert f"got {port}, on which another program listens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--port", "70000"], "between 0 and 65535"),
        (["--port", "0", "--host", "192.0.2.1"], "'192.0.2.1'"),
        (["--port", "0", "--host", "no such host"], "'no such host'"),
        (["--port", "0", "--score-threshold", "0.01"], "between 0.05 and 1"),
        (["--port", "0", "--rate", "0"], "rate above 0"),
        (["--port", "0", "missing.mp4"], "missing.mp4 does not exist"),
        (["--port", "0", "--token", ""], "visible characters"),
    ],
)
def test_bad_options(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--backend", "onnxruntime", *options]) == 1
    assert told in capsys.readouterr().err


def test_file_that_is_no_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    assert main(["serve", "--backend", "onnxruntime", "--port", "0", str(path)]) == 1
    assert "expected a video" in capsys.readouterr().err


class FlakyDetector:
    """Stands in for a detector and its stream; every turn gives some frames, or fails.

    A turn that fails waits for ``gate`` first. After the last turn, frames come until ``close``.
    """

    def __init__(self, *turns: Exception | int) -> None:
        self._turns = list(turns)
        self._closed = threading.Event()
        self.gate = threading.Event()

    def stream(self, source: int | str) -> AbstractContextManager[FlakyDetector]:
        return nullcontext(self)

    def close(self) -> None:
        self._closed.set()

    def __iter__(self) -> Iterator[SimpleNamespace]:
        turn = self._turns.pop(0) if self._turns else sys.maxsize
        if isinstance(turn, Exception):
            assert self.gate.wait(10)
            raise turn
        frame = np.zeros((24, 32, 3), np.uint8)
        for _ in range(turn):
            yield SimpleNamespace(frame=frame, faces=Faces.empty(), dropped=1, latency_ms=2.0)
            if self._closed.wait(0.01):
                return


def test_lost_camera_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "RETRY_SECONDS", 0.01)
    detector = FlakyDetector(1, StreamError("a bad cable"))
    live = Live(detector, "rtsp://me:secret@camera/live", 0.5)  # type: ignore[arg-type]
    live.start()
    told = until(lambda: (now := live.describe())["state"] == "failed" and now)
    assert told["message"].startswith("expected rtsp://camera/live to go on")
    with TestClient(create_app(detector, live), base_url="http://localhost") as client:  # type: ignore[arg-type]
        assert client.get("/health").status_code == 503
        detector.gate.set()
        until(lambda: client.get("/health").status_code == 200)
        stats = client.get("/stats").json()
    assert (stats["state"], stats["message"], stats["size"]) == ("running", "", [32, 24])
    assert stats["dropped"] >= 2
    live._thread.join(5)
    assert not live._thread.is_alive()


@pytest.mark.parametrize("error", [StreamError("no such camera"), RuntimeError("a bug")])
def test_source_that_never_starts_is_an_error(error: Exception) -> None:
    detector = FlakyDetector(error)
    detector.gate.set()
    live = Live(detector, 7, 0.5)  # type: ignore[arg-type]
    with pytest.raises(type(error), match=str(error)):
        live.start()


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "edgeface.server.app", None)
    assert main(["serve"]) == 1
    assert "pip install 'edgeface[serve]'" in capsys.readouterr().err


def test_names_hold_no_password_and_no_folder(tmp_path: Path) -> None:
    assert source_name("rtsp://me:secret@camera:554/live?key=1") == "rtsp://camera:554/live"
    assert source_name(str(tmp_path / "clip.mp4")) == "clip.mp4"
    assert source_name(0) == "camera 0"


def test_addresses() -> None:
    assert address("0.0.0.0", 80) == "http://127.0.0.1:80/"
    assert address("::1", 80) == "http://[::1]:80/"
    assert address("camera.lan", 80) == "http://camera.lan:80/"
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")


def test_stats_by_hand() -> None:
    now = 0.0
    stats = Stats(clock=lambda: now)
    assert stats.snapshot() == {"frames": 0, "faces": 0, "fps": 0.0, "latency_ms": None}
    for frame in range(100):
        now = frame * 0.1
        stats.add(10.0 if frame < 90 else 1000.0, faces=frame % 3)
    snapshot = stats.snapshot()
    assert (snapshot["frames"], snapshot["faces"], snapshot["fps"]) == (100, 0, 10.0)
    latency = snapshot["latency_ms"]
    assert latency["median"] == 10.0
    counts, edges = latency["histogram"]["counts"], latency["histogram"]["edges"]
    assert len(counts) == BINS == len(edges) - 1
    assert sum(counts) == 100
    assert counts[0] == 90
    now += 60
    assert stats.snapshot()["fps"] == 0.0
