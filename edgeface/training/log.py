"""A run's log: CSV files for machines, a loss plot for people."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

from edgeface.bundle import write_atomic

STEPS = "log.csv"
CHECKPOINTS = "checkpoints.csv"
PLOT = "loss.png"


class LogRow(NamedTuple):
    """One logged step: ``loss`` is the weighted total, ``terms`` its parts before their weights."""

    step: int
    size: int
    learning_rate: float
    loss: float
    terms: dict[str, float]
    gradient_norm: float
    samples_per_second: float


class TrainingLog:
    """Appends to the logs of a run; a resumed run drops the rows after its checkpoint."""

    def __init__(self, folder: Path, keep_until: int) -> None:
        self._folder = folder
        self._steps = _rows(folder / STEPS, keep_until)
        self._checkpoints = _rows(folder / CHECKPOINTS, keep_until)
        _write(folder / STEPS, self._steps)

    def step(self, row: LogRow) -> None:
        """Append a step."""
        columns = row._asdict()
        columns |= columns.pop("terms")
        self._steps.append({name: f"{value:.6g}" for name, value in columns.items()})
        with (self._folder / STEPS).open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self._steps[-1]))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(self._steps[-1])

    def checkpoint(self, step: int, figures: dict[str, float]) -> None:
        """Note a checkpoint's evaluation and redraw the plot."""
        if figures:
            self._checkpoints.append(
                {"step": str(step), **{name: f"{value:.6g}" for name, value in figures.items()}}
            )
            _write(self._folder / CHECKPOINTS, self._checkpoints)
        if self._steps:
            self._plot()

    def _plot(self) -> None:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(8, 4.5))
        steps = [int(row["step"]) for row in self._steps]
        for name in ("loss", *(name for name in self._steps[-1] if name not in LogRow._fields)):
            axes.plot(steps, [float(row[name]) for row in self._steps], label=name, linewidth=0.8)
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
        pyplot.close(figure)
        write_atomic(self._folder / PLOT, buffer.getvalue())


def _rows(path: Path, keep_until: int) -> list[dict[str, str]]:
    if not keep_until or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= keep_until]


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    buffer = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(buffer, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    write_atomic(path, buffer.getvalue().encode())
