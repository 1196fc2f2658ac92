"""Page-locked memory of the host, which the GPU copies to and from without a stop between."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeface.runtimes.nvidia.cuda import Cuda, Handle


class _Block(NamedTuple):
    """A piece of that memory, in bytes."""

    memory: Handle
    size: int


class PinnedPool:
    """Hands out arrays; their memory comes back when their last view is gone."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._idle: list[_Block] = []

    def take(self, size: int) -> NDArray[np.uint8]:
        """Return an array of that many bytes, of any content."""
        block = next((block for block in self._idle if block.size >= size), None)
        if block is None:
            self._idle.clear()
            block = _Block(self._cuda.allocate_on_host(size), size)
        else:
            self._idle.remove(block)
        return np.asarray(_Lease(block, size, self._idle))


class _Lease:
    """The base of an array; what it lies in goes back to ``idle`` after it."""

    def __init__(self, block: _Block, size: int, idle: list[_Block]) -> None:
        weakref.finalize(self, idle.append, block)
        self.__array_interface__ = {
            "data": (int(block.memory), False),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }
