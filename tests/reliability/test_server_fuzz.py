"""What strangers send to ``edgeface serve``: generated requests, broken forms, slow clients."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from edgeface import Faces

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("schemathesis", reason="needs the extra 'dev'")
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings

from edgeface.server.app import create_app
from edgeface.server.limits import Limits

HOST = "http://127.0.0.1:8000"
EXAMPLES = 60


class FindsNothing:
    """A detector of no faces."""

    def __call__(self, image: Any) -> Faces:
        return Faces.empty()

    def explain(self) -> SimpleNamespace:
        return SimpleNamespace(
            model="fake", backend="none", why="a test", precision="fp32", input_size=640,
            threads=1, facts={},
        )  # fmt: skip


def make_app() -> FastAPI:
    """A server around it that lets every request in."""
    return create_app(FindsNothing(), limits=Limits(rate=1e9))  # type: ignore[arg-type]


@asynccontextmanager
async def endless(app: FastAPI) -> AsyncIterator[None]:
    """Keep the server's threads: schemathesis starts and stops the application at every call."""
    yield


app = make_app()
app.router.lifespan_context = endless
schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"host": "127.0.0.1"})


@schema.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_no_generated_request_is_a_server_error(case: Any) -> None:
    response = case.call(headers={"host": "127.0.0.1"})
    assert response.status_code < 500, case.as_curl_command()


PNG = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
FORMS = {
    "no boundary": ("multipart/form-data", PART),
    "another boundary": ("multipart/form-data; boundary=c", PART),
    "no end": ("multipart/form-data; boundary=b", PART + PNG),
    "nothing": ("multipart/form-data; boundary=b", b""),
    "endless boundary": ("multipart/form-data; boundary=" + "b" * 70_000, PART),
    "a header without an end": ("multipart/form-data; boundary=b", b"--b\r\nX: " + b"y" * 100_000),
    "a thousand parts": ("multipart/form-data; boundary=b", PART * 1000),
    "bytes that are no text": ("multipart/form-data; boundary=\xff\xfe", b"\0\xff" * 99),
    "a path as name": (
        "multipart/form-data; boundary=b",
        PART.replace(b'"x"', b'"../../../etc/passwd"') + PNG + b"\r\n--b--\r\n",
    ),
    "JSON that nests": ("application/json", b"[" * 50_000),
    "a form of another kind": ("application/x-www-form-urlencoded", b"file=%ff%00" * 99),
}


@pytest.mark.parametrize("kind", FORMS)
def test_no_malformed_form_is_a_server_error(kind: str) -> None:
    content_type, body = FORMS[kind]
    with TestClient(make_app(), base_url=HOST) as client:
        headers = {b"content-type": content_type.encode("latin-1")}
        response = client.post("/detect", content=body, headers=headers)
        assert response.status_code < 500
        assert "passwd" not in response.text
        assert client.post("/detect", content=PNG).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
    ],
)
def test_no_path_leaves_the_page(path: str) -> None:
    with TestClient(make_app(), base_url=HOST) as client:
        response = client.get(path)
        assert response.status_code in (400, 403, 404)
        assert "root:" not in response.text


def test_slow_clients_hold_nobody_up(serve: Callable[..., Any]) -> None:
    """Forty half-sent requests and forty silent connections; a whole request is answered still."""
    served = serve()
    address = urlsplit(served.address)
    assert address.hostname == "127.0.0.1", "loopback by default"
    held = []
    for number in range(80):
        one = socket.create_connection((address.hostname, address.port or 80), timeout=10)
        if number % 2:
            one.sendall(b"POST /detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\nab")
        held.append(one)
    started = time.monotonic()
    with socket.create_connection((address.hostname, address.port or 80), timeout=30) as one:
        head = f"POST /detect HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(PNG)}\r\n"
        one.sendall(head.encode() + b"Connection: close\r\n\r\n" + PNG)
        answer = b""
        while part := one.recv(65536):
            answer += part
    assert answer.split()[1] in (b"200", b"503"), answer[:200]
    assert time.monotonic() - started < 25
    for one in held:
        one.close()
