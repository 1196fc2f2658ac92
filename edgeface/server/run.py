"""The socket, the signals and the shutdown."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgeface.errors import InvalidOptionError

MAX_CONNECTIONS = 64
HEAD_SECONDS = 10.0
IDLE_SECONDS = 5
UNREAD_SECONDS = 10
GRACE_SECONDS = 1


def listen(host: str, port: int) -> socket.socket:
    """Open the server's socket.

    A connection whose peer stops reading is closed by the kernel after ``UNREAD_SECONDS``, where
    it can (Linux).

    Args:
        host: name or address of one of this machine's interfaces.
        port: 0..65535; 0 takes a free one.

    Raises:
        InvalidOptionError: the port is taken or forbidden, or the host is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise InvalidOptionError(f"expected a port between 0 and 65535, got {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidOptionError(_refusal(error, host, port)) from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
    return sock


def serve(app: FastAPI, sock: socket.socket, on_stop: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: the application.
        sock: as ``listen`` returns it.
        on_stop: called at once when a signal comes: ends responses that would never end.

    Raises:
        KeyboardInterrupt: after the shutdown, where SIGINT asked for it.
    """
    config = uvicorn.Config(
        app,
        http=PromptProtocol,
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    # It would log what every broken form looks like.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    _Server(config, on_stop).run([sock])


class PromptProtocol(H11Protocol):
    """HTTP/1.1 that drops a connection whose next request does not begin within some seconds."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._await_request()

    def on_response_complete(self) -> None:
        """Start to wait for the next request."""
        self._await_request()
        super().on_response_complete()

    def _await_request(self) -> None:
        self.loop.call_later(HEAD_SECONDS, self._drop_unless_newer, self.cycle)

    def _drop_unless_newer(self, served: object) -> None:
        if self.cycle is served:
            self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"expected a free port, got {port}, on which another program listens; "
            "take another, or --port 0 for any that is free"
        )
    if error.errno == errno.EACCES:
        return f"expected a port that you may open, got {port}; take one above 1023"
    return (
        f"expected a name or address of this machine, got {host!r} ({error}); use 127.0.0.1, or "
        "0.0.0.0 for every network"
    )
