"""Average precision against milliseconds, as a picture."""

from __future__ import annotations

import io
from typing import Any

from edgeface.bench.candidates import Ours
from edgeface.bench.comparison import Comparison
from edgeface.errors import InvalidOptionError, missing_extra
from edgeface.evaluation.wider import SUBSETS


def check_matplotlib() -> Any:
    """Return matplotlib's figure class.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "bench") from error
    return Figure


def to_png(result: Comparison) -> bytes:
    """Draw each candidate's average precision against its median time, a panel per subset.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InvalidOptionError: no candidate's average precision is known.
    """
    figure_class = check_matplotlib()
    if not result.precisions:
        raise InvalidOptionError(
            "expected average precision to plot, got none; measure it with --evaluate, or name an "
            "earlier --json with --accuracy"
        )
    figure = figure_class(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, len(SUBSETS), sharex=True)
    shown = [one for one in result.candidates if one.name in result.precisions]
    for subset, axes in zip(SUBSETS, panels, strict=True):
        for place, candidate in enumerate(shown):
            axes.scatter(
                result.times(candidate.name).p50,
                getattr(result.precisions[candidate.name], subset),
                color=f"C{place % 10}",
                marker="o" if isinstance(candidate, Ours) else "^",
                s=60,
                label=candidate.name,
            )
        axes.set(title=subset, xlabel="p50 ms")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("average precision")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
