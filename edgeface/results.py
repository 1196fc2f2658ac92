"""What streams share: ``for``, ``async for`` and ``with``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from edgeface.capture import NotYetError

if TYPE_CHECKING:
    from asyncio import Future

# A cancelled ``async for`` leaves a thread of the event loop waiting for at most that long.
ASYNC_WAIT = 0.25

T = TypeVar("T")
R = TypeVar("R", bound="Results[Any]")


class Results(Iterator[T], AsyncIterator[T]):
    """Results that come one after the other until the end, or until ``close``."""

    _pending: Future[tuple[bool, T | None]] | None = None

    @abstractmethod
    def close(self) -> None:
        """End; a loop over the results ends as well. A second call does nothing."""

    @abstractmethod
    def _advance(self, limit: float | None = None) -> T | None:
        """Wait for the next result; None at the end.

        Args:
            limit: seconds to wait; None: as long as it takes.

        Raises:
            NotYetError: nothing came within the limit.
        """

    def __iter__(self: R) -> R:
        return self

    def __next__(self) -> T:
        result = self._advance()
        if result is None:
            raise StopIteration
        return result

    def __aiter__(self: R) -> R:
        return self

    async def __anext__(self) -> T:
        """Return the next result; waits in a thread, and may be cancelled."""
        import asyncio

        ready, result = False, None
        while not ready:
            if self._pending is None:
                self._pending = asyncio.get_running_loop().run_in_executor(None, self._poll)
            await asyncio.wait({self._pending})
            done, self._pending = self._pending, None
            ready, result = done.result()
        if result is None:
            raise StopAsyncIteration
        return result

    def __enter__(self: R) -> R:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self: R) -> R:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close)

    def _poll(self) -> tuple[bool, T | None]:
        """Whether something came within a short while, and what."""
        try:
            return True, self._advance(ASYNC_WAIT)
        except NotYetError:
            return False, None
