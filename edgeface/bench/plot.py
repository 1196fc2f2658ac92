"""Measurements as pictures."""

from __future__ import annotations

import io
from itertools import groupby
from typing import Any

from edgeface.bench.candidates import Ours
from edgeface.bench.comparison import Comparison
from edgeface.bench.growth import FACES, WHOLE, Growth
from edgeface.errors import InvalidOptionError, missing_extra
from edgeface.evaluation.wider import SUBSETS


def figure_class() -> Any:
    """Return matplotlib's figure, which needs no screen.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "bench") from error
    return Figure


def plot_comparison(result: Comparison) -> bytes:
    """Draw each candidate's average precision against its median time, a panel per subset.

    Returns:
        A PNG file.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InvalidOptionError: no candidate's average precision is known.
    """
    make_figure = figure_class()
    if not result.precisions:
        raise InvalidOptionError(
            "expected average precision to plot, got none; measure it with --evaluate, or name an "
            "earlier --json with --accuracy"
        )
    figure = make_figure(figsize=(11, 5), layout="constrained")
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
    return _png(figure, panels[0])


def plot_growth(result: Growth) -> bytes:
    """Draw milliseconds per megapixel over the picture's size, and postprocessing over faces.

    Returns:
        A PNG file.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = figure_class()(figsize=(11, 5), layout="constrained")
    sizes, faces = figure.subplots(1, 2)
    for name, curve in groupby(result.curves.get(WHOLE, ()), lambda one: one.candidate):
        points = list(curve)
        megapixels = [one.megapixels for one in points]
        sizes.plot(megapixels, [one.per_megapixel for one in points], marker="o", label=name)
    sizes.set(xlabel="megapixels, all of them seen", ylabel="ms per megapixel", xscale="log")
    sizes.set_ylim(bottom=0)
    for _, curve in groupby(result.curves.get(FACES, ()), lambda one: one.candidate):
        points = list(curve)
        times = [one.stages["postprocess"] for one in points]
        faces.plot([one.faces for one in points], times, marker="o")
    faces.set(xlabel="faces found", ylabel="postprocess ms")
    faces.set_ylim(bottom=0)
    for axes in (sizes, faces):
        axes.grid(alpha=0.3)
    return _png(figure, sizes)


def _png(figure: Any, labelled: Any) -> bytes:
    handles, labels = labelled.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
