"""The table of an ablation: ticks, AP, and how sure the differences are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.evaluation.average_precision import PictureCounts, picture_counts
from edgeface.evaluation.bootstrap import interval, resampled
from edgeface.evaluation.wider import SUBSETS
from edgeface.training.ablation.run import Examination, Run

MEASURES = (*SUBSETS, "map")
UNGRADED = "hard"


@dataclass(frozen=True)
class Row:
    """What is known of one arm.

    Attributes:
        name: of the arm.
        preset: specification with the arm's options.
        ticks: cell by part.
        runs: figures of each finished seed.
        draws: AP by subset on resampled pictures, averaged over the seeds.
    """

    name: str
    preset: str
    ticks: Mapping[str, str]
    runs: Sequence[Mapping[str, Any]]
    draws: Mapping[str, NDArray[np.float64]]

    def mean(self, measure: str) -> float:
        """Mean over the seeds."""
        values = self._values(measure)
        return statistics.fmean(values) if values else math.nan

    def deviation(self, measure: str) -> float:
        """Standard deviation over the seeds; NaN where there are fewer than two."""
        values = self._values(measure)
        return statistics.stdev(values) if len(values) > 1 else math.nan

    def _values(self, measure: str) -> list[float]:
        return [math.nan if run[measure] is None else run[measure] for run in self.runs]


def read_row(runs: Sequence[Run], ticks: Mapping[str, str], examination: Examination) -> Row:
    """Figures of one arm's seeds, those that are finished."""
    finished = [run for run in runs if run.finished]
    subsets = _subsets(examination)
    counts = [_counts(run, examination, subsets) for run in finished]
    draws = {s: resampled([count[s] for count in counts]) for s in subsets} if counts else {}
    figures = [run.figures() for run in finished]
    return Row(runs[0].arm.name, runs[0].preset, ticks, figures, draws)


def to_json(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything in the table and behind it, as plain numbers; None where a figure is missing."""
    return {**about, "arms": [_row_json(row, rows[0]) for row in rows]}


def to_markdown(rows: Sequence[Row], about: Mapping[str, Any], examination: Examination) -> str:
    """The table in the papers' shape, the differences with their intervals, and what they mean."""
    subsets, parts = _subsets(examination), list(rows[0].ticks)
    titles = {"map": "mAP@0.5:0.95"} | ({} if examination.graded else {UNGRADED: "AP"})
    measures = [*subsets, "map"]
    heads = [titles.get(measure, measure) for measure in measures]
    table = [
        [row.name, *row.ticks.values(), *(_spread(row, m) for m in measures), str(len(row.runs))]
        for row in rows
    ]
    differences = [
        [row.name, *(_signed(*_difference(row, rows[0], subset)) for subset in subsets)]
        for row in rows[1:]
    ]
    size = (
        "original size" if examination.long_side is None else f"long side {examination.long_side}"
    )
    lines = [
        f"{about['title']}: `{about['preset']}`, {about['steps']} steps an arm. Evaluated on "
        f"{examination.name} ({len(examination.pictures)} pictures, {size}).",
        "",
        *_table(["arm", *parts, *heads, "seeds"], table),
    ]
    if differences:
        lines += [
            "",
            f"Difference to “{rows[0].name}” in points of AP, with its 95 % interval over the "
            "evaluation pictures:",
            "",
            *_table(["arm", *heads[:-1]], differences),
        ]
    return "\n".join([*lines, "", NOTE])


NOTE = (
    "± is the standard deviation over seeds, where there are two or more. The interval comes from "
    "a paired bootstrap over the pictures; it does not hold the luck of training, so a difference "
    "counts where its interval leaves out 0 and it is larger than the ± of both rows."
)


def _subsets(examination: Examination) -> tuple[str, ...]:
    return SUBSETS if examination.graded else (UNGRADED,)


def _counts(run: Run, examination: Examination, subsets: Sequence[str]) -> dict[str, PictureCounts]:
    faces = [picture.faces for picture in examination.pictures]
    keep = {s: [picture.keep[s] for picture in examination.pictures] for s in subsets}
    return picture_counts(run.detections(), faces, keep)


def _difference(row: Row, first: Row, subset: str) -> tuple[float, tuple[float, float]]:
    if not row.runs or not first.runs:
        return math.nan, (math.nan, math.nan)
    return row.mean(subset) - first.mean(subset), interval(row.draws[subset] - first.draws[subset])


def _row_json(row: Row, first: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "preset": row.preset,
        "ticks": dict(row.ticks),
        "seeds": [dict(run) for run in row.runs],
        "mean": {m: _plain(row.mean(m)) for m in MEASURES},
        "deviation": {m: _plain(row.deviation(m)) for m in MEASURES},
        "interval": {s: [_plain(v) for v in interval(draws)] for s, draws in row.draws.items()},
        "difference": {
            subset: {"mean": _plain(mean), "interval": [_plain(bound) for bound in bounds]}
            for subset in row.draws
            for mean, bounds in [_difference(row, first, subset)]
        },
    }


def _plain(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _spread(row: Row, measure: str) -> str:
    mean, deviation = row.mean(measure), row.deviation(measure)
    if math.isnan(mean):
        return "–"
    return f"{mean:.3f}" if math.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def _signed(mean: float, bounds: tuple[float, float]) -> str:
    if math.isnan(mean):
        return "–"
    low, high = bounds
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
