"""What a client may ask for, checked before any route sees the request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeface.errors import InvalidOptionError

MEBIBYTE = 2**20
BODY_SECONDS = 10.0
DISCARD_SECONDS = 2.0
BURST_SECONDS = 2.0
MAX_CLIENTS = 4096
OPEN_PATHS = ("/health",)
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """What one server accepts.

    Attributes:
        token: what clients must show; None: nothing.
        max_bytes: largest request body.
        rate: requests a second and client; twice as many at once.
        max_pending: pictures that may wait for the detector.
        max_viewers: streams at a time.
        max_pixels: largest width x height of a picture.
        body_seconds: time that a request's body may take to arrive.

    Raises:
        InvalidOptionError: a limit is not positive, or the token is empty.
    """

    token: str | None = None
    max_bytes: int = 10 * MEBIBYTE
    rate: float = 30.0
    max_pending: int = 8
    max_viewers: int = 8
    max_pixels: int = 50_000_000
    body_seconds: float = BODY_SECONDS

    def __post_init__(self) -> None:
        for name in ("max_bytes", "rate", "max_pending", "max_viewers", "max_pixels"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InvalidOptionError(f"expected {name} above 0, got {getattr(self, name)}")
        if self.token is not None and not (self.token and self.token.isprintable()):
            raise InvalidOptionError(
                f"expected a token of visible characters, got {self.token!r}; leave it away"
            )


class RateLimiter:
    """A token bucket for every client: ``rate`` a second, ``BURST_SECONDS`` of it at once."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Return 0 and count the request, or the seconds until the next one may come."""
        now = self._clock()
        left, last = self._buckets.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - last) * self._rate)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._rate


class Guard:
    """ASGI middleware: host, rate, token and size of every request; headers of every response."""

    def __init__(self, app: ASGIApp, limits: Limits, host: str = "127.0.0.1") -> None:
        self._app, self._limits, self._host = app, limits, host
        self._limiter = RateLimiter(limits.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        seen = 0

        async def receive_limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limits.max_bytes:
                raise self._too_large(f"more than {self._limits.max_bytes}")
            return message

        try:
            self._check(Request(scope))
        except HTTPException as refusal:
            await _discard_body(receive)
            await problem(refusal)(scope, receive, send_guarded)
            return
        await self._app(scope, receive_limited, send_guarded)

    def _check(self, request: Request) -> None:
        name, _ = named_host(request)
        if self._limits.token is None and not is_local_name(name, self._host):
            raise HTTPException(
                421,
                f"expected this machine's name or address as Host, got {name!r}; "
                "open the address that edgeface printed, or start it with --token",
            )
        if request.url.path in OPEN_PATHS:
            return
        wait = self._limiter.wait(request.client.host if request.client else "")
        if wait:
            raise HTTPException(
                429,
                f"expected at most {self._limits.rate:g} requests a second, got more; "
                f"wait {wait:.2f} s",
                {"Retry-After": str(int(wait) + 1)},
            )
        if self._limits.token is not None and not holds_token(request, self._limits.token):
            raise HTTPException(
                401,
                "expected the server's token, got none or another; send 'Authorization: Bearer "
                "TOKEN', or open the page as /?token=TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._limits.max_bytes:
            raise self._too_large(declared)

    def _too_large(self, got: str) -> HTTPException:
        return HTTPException(
            413,
            f"expected at most {self._limits.max_bytes} bytes, got {got}; send a smaller picture",
        )


def problem(error: HTTPException) -> JSONResponse:
    """Build the JSON response of a refusal."""
    content = {"error": HTTPStatus(error.status_code).phrase, "message": error.detail}
    return JSONResponse(content, error.status_code, error.headers)


def cookie_name(request: Request) -> str:
    """Name the page's cookie; browsers share cookies between the ports of a host."""
    return f"edgeface-{named_host(request)[1] or 80}"


def cookie_value(token: str) -> str:
    """Derive what the page's cookie holds; the token itself never leaves the address bar."""
    return hmac.new(token.encode(), b"edgeface page", hashlib.sha256).hexdigest()


def holds_token(request: Request, token: str) -> bool:
    """Tell whether a request shows the token: Authorization, ?token= or the page's cookie."""
    kind, _, bearer = request.headers.get("authorization", "").partition(" ")
    shown = request.query_params.get("token", "").encode()
    if kind.lower() == "bearer":
        shown = bearer.strip().encode("latin-1")
    cookie = request.cookies.get(cookie_name(request), "")
    by_token = hmac.compare_digest(shown, token.encode())
    by_cookie = hmac.compare_digest(cookie.encode(), cookie_value(token).encode())
    return by_token or by_cookie


def named_host(request: Request) -> tuple[str | None, int | None]:
    """Return the name and port in the Host header; starlette replaces what it does not like."""
    try:
        parts = urlsplit(f"//{request.headers.get('host', '')}")
        return parts.hostname, parts.port
    except ValueError as error:
        raise HTTPException(400, f"expected a name or address as Host, got {error}") from error


def is_local_name(name: str | None, bound: str) -> bool:
    """Tell whether a Host header names this machine.

    A web page elsewhere can make its own domain point here (DNS rebinding) and would then read
    the camera; it cannot do so with an address, nor with this machine's names.
    """
    if name is None:
        return False
    own = socket.gethostname().lower()
    if name.lower() in {"localhost", bound.lower(), own, f"{own}.local"}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _discard_body(receive: Receive) -> None:
    """Read on for a moment: a client that is cut off while it sends never sees the answer."""

    async def discard() -> None:
        while (await receive()).get("more_body"):
            pass

    try:
        await asyncio.wait_for(discard(), DISCARD_SECONDS)
    except asyncio.TimeoutError:
        return
