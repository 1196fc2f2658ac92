"""The gate: a quantised artifact is published where it is nearly as accurate as fp32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from edgeface.calibration.accuracy import Accuracy, landmark_ratio
from edgeface.errors import AccuracyError
from edgeface.evaluation.wider import SUBSETS


@dataclass(frozen=True)
class Bounds:
    """How much accuracy quantisation may cost.

    Attributes:
        precision: least share of fp32's average precision, of every subset.
        landmarks: largest landmark error relative to fp32's, on the faces that both found.
    """

    precision: float
    landmarks: float


PUBLISH = Bounds(0.99, 1.05)
FLOOR = Bounds(0.95, 1.25)


@dataclass(frozen=True)
class Verdict:
    """A quantised artifact beside fp32 on the same pictures.

    Attributes:
        reference: accuracy of fp32.
        candidate: accuracy of the quantised artifact.
    """

    reference: Accuracy
    candidate: Accuracy

    @property
    def shares(self) -> dict[str, float]:
        """Average precision relative to fp32's, of the subsets that have faces."""
        pairs = {
            subset: (getattr(self.candidate, subset), getattr(self.reference, subset))
            for subset in SUBSETS
        }
        return {
            subset: got / wanted if wanted > 0 else 0.0
            for subset, (got, wanted) in pairs.items()
            if not math.isnan(wanted)
        }

    @property
    def landmark_ratio(self) -> float:
        """Landmark error relative to fp32's, on the faces that both found."""
        return landmark_ratio(self.reference, self.candidate)

    def within(self, bounds: Bounds) -> bool:
        """Whether the artifact keeps to the bounds; no where nothing could be measured."""
        least = min(self.shares.values(), default=0.0)
        return least >= bounds.precision and self.landmark_ratio <= bounds.landmarks

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for the manifest and the report."""
        ratio = self.landmark_ratio
        return {
            "fp32": self.reference.to_dict(),
            "quantised": self.candidate.to_dict(),
            "average_precision_of_fp32": round(min(self.shares.values(), default=0.0), 5),
            "landmark_error_of_fp32": round(ratio, 5) if math.isfinite(ratio) else None,
        }

    def __str__(self) -> str:
        shares = ", ".join(f"{subset} {share:.2%}" for subset, share in self.shares.items())
        error = self.landmark_ratio - 1
        return f"{shares or 'no face'} of fp32's average precision, landmark error {error:+.2%}"


def require(verdict: Verdict, name: str, *, accept_drop: bool = False) -> bool:
    """Let a quantised artifact through, or refuse it.

    Args:
        verdict: the measurement.
        name: what was measured, for the message.
        accept_drop: let it through down to ``FLOOR``.

    Returns:
        Whether it got through only because the drop was accepted; the manifest must say so.

    Raises:
        AccuracyError: it is too far below fp32.
    """
    if verdict.within(PUBLISH):
        return False
    if accept_drop and verdict.within(FLOOR):
        return True
    bounds = FLOOR if accept_drop else PUBLISH
    remedies = ["calibrate with more pictures like those of the evaluation", "--explain"]
    if verdict.within(FLOOR):
        remedies.append("--accept-accuracy-drop")
    raise AccuracyError(
        f"expected {name} to keep {bounds.precision:.0%} of fp32's average precision and "
        f"{bounds.landmarks - 1:.0%} more landmark error at most, got {verdict}; "
        f"nothing was published: {', '.join(remedies[:-1])} or {remedies[-1]}",
        verdict.to_dict(),
    )
