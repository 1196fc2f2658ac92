"""The fixed input sizes that a static graph may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from edgeface.errors import InvalidOptionError

Size: TypeAlias = tuple[int, int]


def check_input_sizes(sizes: Sequence[Size], stride: int) -> None:
    """Raise InvalidOptionError where a (width, height) is no multiple of the coarsest stride."""
    for width, height in sizes:
        if min(width, height) < 1 or width % stride or height % stride:
            raise InvalidOptionError(
                f"expected input sizes in multiples of {stride} pixels, got {width}x{height}"
            )
