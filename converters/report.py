"""What a parity check found: numbers, verdict, and a table to read."""

from __future__ import annotations

from dataclasses import dataclass

MIN_SNR_DB = 80.0
MIN_IOU = 0.99
MAX_LANDMARK_PX = 0.5


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
        matched: those that the backend finds too, at an IoU of ``MIN_IOU``.
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
        backend: name and version of the backend.
        tensors: one entry per output.
        faces: the comparison after postprocessing.
    """

    backend: str
    tensors: tuple[TensorParity, ...]
    faces: FaceParity

    @property
    def passed(self) -> bool:
        """Whether it is within every bound."""
        return (
            all(tensor.snr_db >= MIN_SNR_DB for tensor in self.tensors)
            and self.faces.matched == self.faces.expected
            and self.faces.extra == 0
            and self.faces.landmark_px <= MAX_LANDMARK_PX
        )


@dataclass(frozen=True)
class ParityReport:
    """All backends against torch, at float32.

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
        """Return a table, one row per backend."""
        rows = [
            "| backend | worst SNR dB | max abs | same faces | least IoU | landmark px | verdict |",
            "|---|---|---|---|---|---|---|",
        ]
        for one in self.backends:
            snr = min(tensor.snr_db for tensor in one.tensors)
            worst = max(tensor.max_abs for tensor in one.tensors)
            faces = one.faces
            extra = f", {faces.extra} extra" if faces.extra else ""
            rows.append(
                f"| {one.backend} | {snr:.1f} | {worst:.1e} "
                f"| {faces.matched} of {faces.expected}{extra} | {faces.iou:.4f} "
                f"| {faces.landmark_px:.4f} | {'equal' if one.passed else 'DIFFERS'} |"
            )
        rows += [f"| {name} | | | | | | not run |" for name in self.skipped]
        return "\n".join(rows)
