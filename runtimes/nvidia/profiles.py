"""Which frames an engine takes: sizes and batches fall into a few ranges, one engine each."""

from __future__ import annotations

from dataclasses import dataclass

from edgeface.runtimes.base import RuntimeOptions

Shape = tuple[int, int, int, int]

SIDES = (640, 1280, 1920, 3840)
BATCHES = (1, 8, 32)
_CHANNELS = 3


@dataclass(frozen=True)
class Profile:
    """The frames (N, H, W, 3) that an engine takes.

    Attributes:
        smallest: no dimension is below it.
        usual: what it is fastest at.
        largest: no dimension is above it.
    """

    smallest: Shape
    usual: Shape
    largest: Shape

    @property
    def is_static(self) -> bool:
        """Whether it takes one shape only."""
        return self.smallest == self.largest

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether frames of that shape fit."""
        within = zip(self.smallest, shape, self.largest, strict=True)
        return all(low <= value <= high for low, value, high in within)

    def __str__(self) -> str:
        if self.is_static:
            return _label(self.usual)
        return f"{_label(self.smallest)} to {_label(self.largest)}"


def first_profile(options: RuntimeOptions) -> Profile:
    """The profile to build at the start: the fixed size, or all sizes up to the long side."""
    if options.input_size or options.input_sizes:
        width, height = options.input_size or options.input_sizes[0]
        return profile_for((1, height, width, _CHANNELS), options)
    side = options.long_side or SIDES[0]
    return _range(1, side, options.stride)


def profile_for(shape: tuple[int, ...], options: RuntimeOptions) -> Profile:
    """The profile for frames of a shape (N, H, W, 3): a fixed size alone, others in a range."""
    batch, height, width, _ = shape
    fixed = (width, height) == options.input_size or (width, height) in options.input_sizes
    if not fixed:
        return _range(batch, max(height, width), options.stride)
    least, most = options.batch or 1, options.batch or _up_to(batch, BATCHES)
    one, all_ = (least, height, width, _CHANNELS), (most, height, width, _CHANNELS)
    return Profile(one, all_, all_)


def _range(batch: int, side: int, stride: int) -> Profile:
    """All batches and sizes up to the next of the usual bounds, at best in a landscape of 4:3."""
    most, side = _up_to(batch, BATCHES), _round_up(_up_to(side, SIDES), stride)
    return Profile(
        smallest=(1, stride, stride, _CHANNELS),
        usual=(most, _round_up(side * 3 // 4, stride), side, _CHANNELS),
        largest=(most, side, side, _CHANNELS),
    )


def _up_to(value: int, bounds: tuple[int, ...]) -> int:
    return next((bound for bound in bounds if value <= bound), value)


def _round_up(value: int, stride: int) -> int:
    return -(-value // stride) * stride


def _label(shape: Shape) -> str:
    return f"{shape[0]}x{shape[2]}x{shape[1]}"
