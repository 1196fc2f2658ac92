"""Figures without a screen."""

from __future__ import annotations

import io
from typing import Any

from edgeface.errors import missing_extra


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure of that size in inches, and its axes.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "quantize") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def to_png(figure: Any) -> bytes:
    """Encode a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
