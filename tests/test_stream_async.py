"""``async for`` over streams."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Faces
from edgeface.stream import StreamResult, open_stream


def grey(value: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def no_faces(image: NDArray[np.uint8]) -> Faces:
    return Faces.empty()


def level(result: StreamResult) -> int:
    return round(float(result.frame.mean()))


def test_async_for() -> None:
    async def main() -> list[int]:
        async with open_stream(no_faces, [grey(value) for value in range(5)], "every") as stream:
            return [level(result) async for result in stream]

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def gated(gate: threading.Event) -> Iterator[NDArray[np.uint8]]:
    yield grey(1)
    gate.wait(10)
    yield grey(2)


def test_a_cancelled_wait_loses_no_frame(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeface.results.ASYNC_WAIT", 5)

    async def main() -> list[int]:
        async with open_stream(no_faces, gated(gate), "every") as stream:
            first = await anext(aiter(stream))
            for _ in range(2):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(stream.__anext__(), 0.05)
            gate.set()
            return [level(first), *[level(result) async for result in stream]]

    assert asyncio.run(main()) == [1, 2]


def test_a_cancelled_wait_does_not_hold_up_the_event_loop(
    gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    stream = open_stream(no_faces, gated(gate), "every")

    async def main() -> None:
        await stream.__anext__()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.05)

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 3
    assert not caplog.records
    stream.close()


def test_errors_arrive_in_async_for() -> None:
    def broken() -> Iterator[NDArray[np.uint8]]:
        yield grey(1)
        raise TimeoutError("mine")

    async def main() -> None:
        async for _ in open_stream(no_faces, broken(), "every"):
            pass

    with pytest.raises(TimeoutError, match="mine"):
        asyncio.run(main())
