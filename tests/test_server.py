"""The API of ``edgeface serve``, without a socket."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.detector import Detector
from edgeface.errors import InferenceError, InvalidOptionError
from edgeface.faces import Faces

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
from fastapi.testclient import TestClient

from edgeface.server.app import create_app
from edgeface.server.limits import Limits, RateLimiter, is_local_name
from edgeface.server.schemas import LOWEST_THRESHOLD

LEFT_EYE = (202, 101)  # of the astronaut, by eye
HOST = "http://127.0.0.1:8000"
MakeClient = Callable[..., TestClient]


class FakeDetector:
    """Finds two faces in everything; ``on_call`` may block or raise."""

    def __init__(self, on_call: Callable[[], object] = lambda: None) -> None:
        self._on_call = on_call

    def __call__(self, image: NDArray[np.uint8]) -> Faces:
        self._on_call()
        boxes = np.array([[1, 2, 30, 40], [5, 5, 9, 9]], np.float32)
        return Faces(boxes, np.array([0.9, 0.3], np.float32))

    def explain(self) -> SimpleNamespace:
        return SimpleNamespace(
            model="fake", backend="none", why="a test", precision="fp32", input_size=640,
            threads=1, facts={},
        )  # fmt: skip


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with Detector("onnxruntime", score_threshold=LOWEST_THRESHOLD) as detector:
        yield detector


@pytest.fixture
def client() -> Iterator[MakeClient]:
    """Make a client of a server around a detector: ``client(detector, **limits)``."""
    clients: list[TestClient] = []

    def make(detector: Any = None, host: str = HOST, **limits: Any) -> TestClient:
        app = create_app(detector or FakeDetector(), limits=Limits(**limits))
        clients.append(TestClient(app, base_url=host))
        return clients[-1].__enter__()

    yield make
    for one in clients:
        one.__exit__(None, None, None)


@pytest.fixture(scope="module")
def png(astronaut: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", astronaut)[1].tobytes()


def small_png() -> bytes:
    return cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()


def test_detect(client: MakeClient, detector: Detector, png: bytes) -> None:
    api = client(detector)
    answer = api.post("/detect", content=png)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["width"], found["height"]) == (512, 512)
    assert found["milliseconds"] > 0
    best = found["faces"][0]
    assert np.allclose(best["landmarks"]["left_eye"], LEFT_EYE, atol=8)

    form = api.post("/detect", files={"file": ("a.png", png, "image/png")}).json()
    assert form["faces"] == found["faces"]


def test_threshold_and_max_faces(client: MakeClient) -> None:
    api = client()

    def scores(query: str) -> list[float]:
        faces = api.post(f"/detect{query}", content=small_png()).json()["faces"]
        return [round(face["score"], 2) for face in faces]

    assert scores("") == [0.9]
    assert scores("?threshold=0.2") == [0.9, 0.3]
    assert scores("?threshold=0.2&max_faces=1") == [0.9]
    assert scores("?threshold=0.95") == []


@pytest.mark.parametrize("query", ["threshold=0.01", "threshold=2", "threshold=x", "max_faces=0"])
def test_options_out_of_range(client: MakeClient, query: str) -> None:
    answer = client().post(f"/detect?{query}", content=small_png())
    assert answer.status_code == 422
    assert answer.json()["error"] == "InvalidOptionError"
    name, _, value = query.partition("=")
    assert name in answer.json()["message"]
    assert repr(value) in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "told"),
    [(b"", "nothing"), (b"hello", "no known picture format"), (small_png()[:60], "truncated")],
)
def test_what_is_no_picture(client: MakeClient, body: bytes, told: str) -> None:
    answer = client().post("/detect", content=body)
    assert answer.status_code == 422
    assert answer.json()["error"] == "InvalidImageError"
    assert told in answer.json()["message"]


def test_form_without_a_file(client: MakeClient) -> None:
    api = client()
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    without = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
    answer = api.post("/detect", content=without, headers=boundary)
    assert answer.status_code == 400
    assert "file" in answer.json()["message"]
    broken = api.post("/detect", content=b"rubbish", headers=boundary)
    assert broken.status_code == 400
    assert set(broken.json()) == {"error", "message"}


def test_too_many_pixels(client: MakeClient) -> None:
    answer = client(max_pixels=1000).post("/detect", content=small_png())
    assert answer.status_code == 422
    assert "1000 pixels" in answer.json()["message"]


def test_too_large(client: MakeClient) -> None:
    api = client(max_bytes=1000)
    declared = api.post("/detect", content=bytes(1001))
    in_chunks = api.post("/detect", content=iter([bytes(600), bytes(600)]))
    form = api.post("/detect", files={"file": bytes(2000)})
    for answer in (declared, in_chunks, form):
        assert answer.status_code == 413
        assert "1000 bytes" in answer.json()["message"]


def test_rate(client: MakeClient) -> None:
    api = client(rate=0.01)
    assert api.get("/api").status_code == 200
    refused = api.get("/api")
    assert refused.status_code == 429
    assert 90 < int(refused.headers["retry-after"]) <= 101
    assert "0.01 requests a second" in refused.json()["message"]
    assert api.get("/health").status_code == 200


def test_rate_limiter_refills_and_forgets() -> None:
    now = 0.0
    limiter = RateLimiter(rate=1, clock=lambda: now)
    assert [limiter.wait("a") for _ in range(3)] == [0, 0, 1]
    assert limiter.wait("b") == 0
    now = 0.75
    assert limiter.wait("a") == pytest.approx(0.25)
    now = 1.0
    assert limiter.wait("a") == 0
    for index in range(10_000):
        limiter.wait(str(index))
    assert len(limiter._buckets) < 5000


def test_token(client: MakeClient) -> None:
    api = client(token="säcret")
    assert api.get("/health").status_code == 200
    for refused in (api.get("/"), api.get("/?token=wrong"), api.post("/detect", content=b"x")):
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
    bearer = {"Authorization": "Bearer säcret".encode()}
    assert api.post("/detect", content=small_png(), headers=bearer).status_code == 200
    assert api.get("/api", headers={"Authorization": "Bearer wrong"}).status_code == 401

    entered = api.get("/", params={"token": "säcret"}, follow_redirects=False)
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "cret" not in cookie
    assert api.get("/stats").status_code == 200


def test_empty_token_is_no_token() -> None:
    for token in ("", "a\n", "\udcff"):
        with pytest.raises(InvalidOptionError, match="visible"):
            Limits(token=token)
    with pytest.raises(InvalidOptionError, match="rate"):
        Limits(rate=0)


def test_foreign_names_are_refused(client: MakeClient) -> None:
    for name in ("evil.example", "evil_one.example", "127.0.0.1.evil.example", "x@127.0.0.1:9@e"):
        assert client().get("/stats", headers={"Host": name}).status_code == 421
    assert client(host="http://evil.example", token="x").get("/stats").status_code == 401
    for name in ("localhost", "192.168.1.9:8000", "[::1]:80"):
        assert client().get("/stats", headers={"Host": name}).status_code == 200
    for broken in ("[::1", "localhost:port"):
        assert client().get("/stats", headers={"Host": broken}).status_code == 400
    assert is_local_name("camera.lan", "camera.lan")
    assert not is_local_name(None, "127.0.0.1")


def test_security_headers(client: MakeClient) -> None:
    api = client(max_bytes=10)
    for answer in (api.get("/"), api.get("/nothing"), api.post("/detect", content=bytes(99))):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/../app.py", "/page.js/../app.py", "/%2e%2e/app.py", "/app.py"])
def test_no_other_file_is_served(client: MakeClient, path: str) -> None:
    answer = client().get(path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error", "message"}


def test_page_asks_for_nothing_elsewhere(client: MakeClient) -> None:
    api = client()
    assert "<title>edgeface</title>" in api.get("/").text
    for path in ("/", "/docs", "/page.js", "/page.css"):
        text = api.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""(?:src|href|url|import|fetch)\W+(?:https?:)?//""", text), path


def test_one_picture_at_a_time(client: MakeClient) -> None:
    entered, released = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        assert released.wait(10)

    api = client(FakeDetector(block), max_pending=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(api.post, "/detect", content=small_png())
        assert entered.wait(10)
        second = api.post("/detect", content=small_png())
        answers_meanwhile = api.get("/health")
        released.set()
        assert first.result().status_code == 200
    assert second.status_code == 503
    assert second.headers["retry-after"] == "1"
    assert answers_meanwhile.status_code == 200
    assert api.post("/detect", content=small_png()).status_code == 200


def test_backend_that_fails(client: MakeClient) -> None:
    def fail() -> None:
        raise InferenceError("expected 3 outputs, got 2")

    answer = client(FakeDetector(fail)).post("/detect", content=small_png())
    assert answer.status_code == 500
    assert answer.json() == {"error": "InferenceError", "message": "expected 3 outputs, got 2"}


@pytest.mark.parametrize(
    ("seconds", "status", "told"), [(0.0, 400, "the client left"), (60.0, 408, "within 0.05 s")]
)
def test_body_that_never_ends(seconds: float, status: int, told: str) -> None:
    app = create_app(FakeDetector(), limits=Limits(body_seconds=0.05))  # type: ignore[arg-type]
    sent: list[dict[str, Any]] = []

    begun = False

    async def receive() -> dict[str, Any]:
        nonlocal begun
        if not begun:
            begun = True
            return {"type": "http.request", "body": b"x", "more_body": True}
        await asyncio.sleep(seconds)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/detect", "raw_path": b"/detect",
        "query_string": b"", "headers": [(b"host", b"localhost")], "client": ("::1", 1),
        "server": ("::1", 80), "scheme": "http", "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == status
    assert told in json.loads(sent[1]["body"])["message"]


def test_info_and_stats(client: MakeClient, detector: Detector) -> None:
    api = client(detector)
    info = api.get("/api").json()
    assert info["backend"] == "onnxruntime"
    assert info["model"] == "retinaface_mobilenet025"
    assert info["source"] is None
    assert api.get("/stats").json()["latency_ms"] is None
    for _ in range(3):
        api.post("/detect", content=small_png())
    stats = api.get("/stats").json()
    assert stats["frames"] == 3
    assert sum(stats["latency_ms"]["histogram"]["counts"]) == 3
    assert stats["latency_ms"]["p95"] >= stats["latency_ms"]["median"] > 0


def test_without_a_source(client: MakeClient) -> None:
    api = client()
    assert api.get("/stream.mjpg").status_code == 404
    assert api.put("/threshold", json={"value": 0.5}).status_code == 404


def test_openapi(client: MakeClient) -> None:
    schema = client(token="x").get("/openapi.json?token=x").json()
    assert schema["openapi"].startswith("3.")
    assert set(schema["paths"]) == {
        "/detect", "/stream.mjpg", "/stats", "/threshold", "/health", "/api",
    }  # fmt: skip
    detect = schema["paths"]["/detect"]["post"]
    assert set(detect["requestBody"]["content"]) == {"image/*", "multipart/form-data"}
    assert {one["name"] for one in detect["parameters"]} == {"threshold", "max_faces"}
    assert {"200", "401", "408", "413", "422", "429", "503"} <= set(detect["responses"])
    assert schema["components"]["securitySchemes"]
    references = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(schema))
    assert set(references) <= set(schema["components"]["schemas"])
    assert f"curl --data-binary @photo.jpg {HOST}/detect" in client().get("/docs").text
