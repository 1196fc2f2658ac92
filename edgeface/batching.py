"""Which pictures go to the backend together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeface.runtimes.base import Outputs


def by_shape(images: Sequence[object], most: int) -> list[list[int]]:
    """Split a list into a few pictures each, arrays of one shape together where they fill that.

    Args:
        images: what the detector takes; only arrays are looked at.
        most: pictures that may be in memory together.

    Returns:
        Positions in the list, each once.
    """
    shapes = [image.shape if isinstance(image, np.ndarray) else None for image in images]
    groups = full_batches(shapes, most)
    rest = sorted(position for group in groups if len(group) < most for position in group)
    full = [group for group in groups if len(group) == most]
    return sorted(full + [rest[start : start + most] for start in range(0, len(rest), most)])


def full_batches(sizes: Sequence[Hashable], batch: int) -> list[list[int]]:
    """Group frames of one size; those that fill no batch stay alone, for they need no new graph.

    Args:
        sizes: of the frames.
        batch: frames that go together.

    Returns:
        Positions among the sizes, each once: in groups of ``batch``, or alone.
    """
    alike: dict[Hashable, list[int]] = {}
    for position, size in enumerate(sizes):
        alike.setdefault(size, []).append(position)
    groups = []
    for positions in alike.values():
        full = len(positions) - len(positions) % batch
        groups += [positions[start : start + batch] for start in range(0, full, batch)]
        groups += [[position] for position in positions[full:]]
    return groups


def frame_buffer(shape: tuple[int, ...], old: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Memory for frames (N, H, W, 3): that of earlier ones where it fits."""
    return old if old is not None and old.shape == shape else np.empty(shape, np.uint8)


def one_of(outputs: Outputs, index: int) -> Outputs:
    """The outputs for one frame of several, views of them."""
    return {name: value[index : index + 1] for name, value in outputs.items()}
