"""Ray itself: joining or starting it, and what it says when it fails."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from edgeface.errors import BackendUnavailableError, InferenceError

STORE_BYTES = 150_000_000  # pictures never pass through Ray's object store
KNOCK_SECONDS = 5.0
RAISED = re.compile(r"^[\w.]*(Error|Exception): .+", re.MULTILINE)


@contextmanager
def cluster(address: str, cores: int | None) -> Iterator[None]:
    """Join or start Ray, quietly, unless the caller already did.

    Args:
        address: "local", or where a cluster runs.
        cores: cores that a local one may use; None: all.

    Raises:
        BackendUnavailableError: there is no such cluster.
        InferenceError: Ray fails within the block.
    """
    import ray
    import ray.data
    from ray.exceptions import RayError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    joined = ray.is_initialized()
    if not joined:
        _join(address, cores)
    try:
        yield
    except RayError as error:
        first = RAISED.search(str(error))
        raise InferenceError(
            "expected Ray's workers to finish, but one failed: "
            f"{first.group() if first else str(error).splitlines()[0]}; "
            "the archive goes on from here when it is run again"
        ) from error
    finally:
        if not joined:
            ray.shutdown()


def _join(address: str, cores: int | None) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    own = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    started = own if address == "local" else {}
    try:
        _knock(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **started)
    except (OSError, RuntimeError, ValueError) as error:
        raise BackendUnavailableError(
            f"expected a Ray cluster at {address}, but it cannot be joined ({error}); start one "
            "with 'ray start --head', or use local"
        ) from error


def _knock(address: str) -> None:
    """Raise an OSError where nobody listens; Ray itself takes minutes to find out."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
