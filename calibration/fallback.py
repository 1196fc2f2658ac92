"""Where int8 fails the gate, the layers that cost most stay in float until it passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeface.calibration.gate import PUBLISH, Bounds, Verdict
from edgeface.calibration.sensitivity import Quantise
from edgeface.errors import AccuracyError

LARGEST_SHARE = 0.5


@dataclass(frozen=True)
class Fallback:
    """What it took to pass.

    Attributes:
        kept_float: the layers that stay in float.
        milliseconds: what one frame takes.
        milliseconds_before: what it takes with every layer quantised.
    """

    kept_float: tuple[str, ...]
    milliseconds: float
    milliseconds_before: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for the manifest and the report."""
        return {
            "kept_float": list(self.kept_float),
            "milliseconds": round(self.milliseconds, 3),
            "milliseconds_all_int8": round(self.milliseconds_before, 3),
        }

    def __str__(self) -> str:
        cost = self.milliseconds - self.milliseconds_before
        return (
            f"{len(self.kept_float)} layers kept in float ({', '.join(self.kept_float)}): "
            f"{self.milliseconds:.2f} ms a frame instead of {self.milliseconds_before:.2f} "
            f"({cost:+.2f} ms)"
        )


def keep_worst_float(
    worst_first: Sequence[str],
    quantise: Quantise,
    judge: Callable[[bytes], Verdict],
    bounds: Bounds = PUBLISH,
) -> tuple[bytes, tuple[str, ...], Verdict]:
    """Find the fewest of the worst layers that have to stay in float.

    Doubles their number until the artifact is within the bounds, then halves the gap.

    Args:
        worst_first: all layers, those that cost most first.
        quantise: makes an artifact with the given layers kept in float.
        judge: measures an artifact.
        bounds: what it has to keep to.

    Returns:
        The artifact, the layers kept in float, and the measurement.

    Raises:
        AccuracyError: half of the layers in float are not enough.
    """
    most = max(1, int(len(worst_first) * LARGEST_SHARE))
    tried: dict[int, tuple[bytes, Verdict]] = {}

    def passes(count: int) -> bool:
        content = quantise(frozenset(worst_first[:count]))
        tried[count] = content, judge(content)
        return tried[count][1].within(bounds)

    failing, passing = 0, 1
    while not passes(passing):
        if passing == most:
            verdict = tried[passing][1]
            raise AccuracyError(
                f"expected int8 to pass with half of its layers in float, got {verdict}; "
                "calibrate with more pictures, or stay with fp32 or fp16",
                verdict.to_dict(),
            )
        failing, passing = passing, min(2 * passing, most)
    while passing - failing > 1:
        middle = (failing + passing) // 2
        if passes(middle):
            passing = middle
        else:
            failing = middle
    content, verdict = tried[passing]
    return content, tuple(worst_first[:passing]), verdict
