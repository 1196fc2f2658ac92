"""What a parity check found: numbers, verdict, and a table to read."""

from __future__ import annotations

from dataclasses import dataclass

from edgeface.converters.divergence import Divergence


@dataclass(frozen=True)
class Bounds:
    """How far an artifact may be from torch.

    Attributes:
        snr_db: least signal to noise of every output and layer, in dB.
        iou: least IoU of a face with torch's.
        faces: least share of the faces that both find, for rounding may decide which of two anchors
            survives non-maximum suppression.
        landmark_px: largest distance of a landmark, in pixels; None: faces are shown, not judged.
    """

    snr_db: float
    iou: float
    faces: float
    landmark_px: float | None


# Faces of an int8 artifact are judged by their accuracy, in edgeface.calibration.gate. Here it
# only has to be the same net, on pictures unlike those that it was calibrated on.
BOUNDS = {
    "fp32": Bounds(80.0, 0.99, 1.0, 0.5),
    "fp16": Bounds(40.0, 0.95, 0.9, 1.0),
    "int8": Bounds(3.0, 0.5, 0.0, None),
}


@dataclass(frozen=True)
class TensorParity:
    """How far one output is from torch's, over all frames.

    Attributes:
        name: name of the output.
        max_abs: largest absolute difference.
        snr_db: signal to noise in dB, torch's output being the signal; infinite where equal.
    """

    name: str
    max_abs: float
    snr_db: float


@dataclass(frozen=True)
class FaceParity:
    """How far the faces are from torch's, over all frames.

    Attributes:
        expected: faces that torch finds.
        matched: those that the backend finds too, at the precision's least IoU.
        extra: faces that the backend alone finds.
        iou: least IoU of a matched face.
        landmark_px: largest distance of a matched face's landmark, in pixels.
    """

    expected: int
    matched: int
    extra: int
    iou: float
    landmark_px: float


@dataclass(frozen=True)
class BackendParity:
    """One backend against torch.

    Attributes:
        backend: name and version of the backend, and what it ran where that is another's file.
        precision: "fp32", "fp16" or "int8"; it sets the bounds.
        tensors: one entry per output.
        faces: the comparison after postprocessing.
        divergence: the first layer that differs, where it did not pass and one could be found.
    """

    backend: str
    precision: str
    tensors: tuple[TensorParity, ...]
    faces: FaceParity
    divergence: Divergence | None = None

    @property
    def passed(self) -> bool:
        """Whether it is within every bound."""
        bounds = BOUNDS[self.precision]
        return all(tensor.snr_db >= bounds.snr_db for tensor in self.tensors) and (
            bounds.landmark_px is None
            or (
                self.faces.matched >= bounds.faces * self.faces.expected
                and self.faces.extra <= (1 - bounds.faces) * self.faces.expected
                and self.faces.landmark_px <= bounds.landmark_px
            )
        )


@dataclass(frozen=True)
class ParityReport:
    """All backends against torch, which computes in float32.

    Attributes:
        backends: one entry per backend that ran.
        skipped: why the others did not, by name.
    """

    backends: tuple[BackendParity, ...]
    skipped: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every backend that ran is within the bounds, and one did run."""
        return bool(self.backends) and all(one.passed for one in self.backends)

    def to_markdown(self) -> str:
        """Return a table, one row per backend, and the layers where they begin to differ."""
        rows = [
            "| backend | precision | worst SNR dB | max abs | same faces | least IoU | landmark px "
            "| verdict |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for one in self.backends:
            snr = min(tensor.snr_db for tensor in one.tensors)
            worst = max(tensor.max_abs for tensor in one.tensors)
            faces = one.faces
            extra = f", {faces.extra} extra" if faces.extra else ""
            rows.append(
                f"| {one.backend} | {one.precision} | {snr:.1f} | {worst:.1e} "
                f"| {faces.matched} of {faces.expected}{extra} | {faces.iou:.4f} "
                f"| {faces.landmark_px:.4f} | {'equal' if one.passed else 'DIFFERS'} |"
            )
        rows += [f"| {name} | | | | | | | not run |" for name in self.skipped]
        rows += [
            f"\nFirst layer that differs on {one.backend}, {one.precision}: {one.divergence}"
            for one in self.backends
            if one.divergence
        ]
        return "\n".join(rows)
