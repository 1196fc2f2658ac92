"""Typed errors: each says what was expected, what came, and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class EdgeFaceError(Exception):
    """Base of every error that edgeface raises on purpose."""


class InvalidImageError(EdgeFaceError, ValueError):
    """The input is no picture that edgeface can read: path, bytes, dtype or shape."""


class InvalidOptionError(EdgeFaceError, ValueError):
    """An option has a value outside what it accepts."""


class BackendUnavailableError(EdgeFaceError, RuntimeError):
    """The named backend cannot run on this machine; the message names what is missing."""


class MissingDependencyError(EdgeFaceError, ImportError):
    """A package of an optional extra is not installed."""


class ModelNotFoundError(EdgeFaceError, FileNotFoundError):
    """No bundle, or no artifact of the wanted precision, under that name."""


class ModelIntegrityError(EdgeFaceError, RuntimeError):
    """A bundle is damaged: bad manifest, missing file, or a hash that does not match."""


class InferenceError(EdgeFaceError, RuntimeError):
    """The backend failed while it ran a frame."""


class NumericalError(EdgeFaceError, RuntimeWarning):
    """The network's outputs were not finite; told as a warning and counted, see ``Detector``."""


class StreamError(EdgeFaceError, RuntimeError):
    """A camera or network stream cannot be opened, or stopped and did not come back."""


class OutputError(EdgeFaceError, OSError):
    """An output cannot be written: no such place, no permission, or the disk is full."""


class DatasetError(EdgeFaceError, ValueError):
    """A dataset folder, label file or ground truth cannot be used."""


class TrainingError(EdgeFaceError, RuntimeError):
    """Training cannot start or go on: bad recipe, wrong checkpoint, non-finite loss."""


class CheckpointError(EdgeFaceError, ValueError):
    """A checkpoint holds no state dict, or its weights do not fit the net."""


class ConversionError(EdgeFaceError, RuntimeError):
    """A net cannot be converted to the wanted target."""


class AccuracyError(EdgeFaceError, RuntimeError):
    """A quantised model is too far below fp32 to be published.

    Attributes:
        figures: what was measured, in plain numbers.
    """

    def __init__(self, message: str, figures: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.figures = figures or {}


class CalibrationError(EdgeFaceError, RuntimeError):
    """A calibration set cannot be made or used, or a graph cannot be quantised."""


def missing_extra(package: str, extra: str) -> MissingDependencyError:
    """Build the error for a package that one of edgeface's extras would install."""
    return MissingDependencyError(
        f"expected the package '{package}' to be installed, but it cannot be imported; "
        f"install it with: pip install 'edgeface[{extra}]'"
    )
