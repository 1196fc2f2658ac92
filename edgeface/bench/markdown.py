"""A comparison to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from edgeface.bench.candidates import Ours
from edgeface.bench.comparison import STAGES, Comparison
from edgeface.bench.machine import Machine
from edgeface.bench.starting import FRAMES, Start
from edgeface.preprocess import InputSize

NONE = "–"


def to_markdown(result: Comparison, *, stages: bool = False, plot: str = "") -> str:
    """Return the tables.

    Args:
        result: what was measured.
        stages: with the table of stages.
        plot: name of the plot's file, to show it.
    """
    parts = [
        heading(result.machine, result.picture, result.settings.input_size, len(result.rounds))
    ]
    if result.interrupted:
        parts.append("**Interrupted: what is missing was not measured.**")
    parts.append(_times(result))
    parts.append(_ratios(result))
    parts += [_stages(result)] if stages else []
    parts += [_starts(result)] if result.starts else []
    parts += [_precision(result)] if result.precisions else []
    parts += [f"![Average precision against milliseconds]({plot})"] if plot else []
    parts += ["  \n".join(result.notes)] if result.notes else []
    return "\n\n".join(parts) + "\n"


def heading(machine: Machine, picture: str, input_size: InputSize, rounds: int) -> str:
    """Say where and how it was measured."""
    size = "the picture's own size" if input_size is None else f"input size {input_size}"
    return (
        f"{machine}  \n{picture}, {size}, {rounds} interleaved rounds; milliseconds of whole "
        "calls, picture to faces."
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def number(value: float | None, digits: int = 1) -> str:
    """Format a figure, or a dash where it was not measured."""
    return NONE if value is None else f"{value:.{digits}f}"


def _times(result: Comparison) -> str:
    rows = []
    for candidate in result.candidates:
        times = result.times(candidate.name)
        rows.append([
            candidate.name,
            *(number(value, 2) for value in (times.p50, times.p90, times.p99, times.cpu)),
            str(result.faces.get(candidate.name, NONE)),
            *([number(result.joules.get(candidate.name), 3)] if result.joules else []),
        ])  # fmt: skip
    header = ["detector, backend", "p50 ms", "p90 ms", "p99 ms", "CPU ms", "faces"]
    return table([*header, *(["J a picture"] if result.joules else [])], rows)


def _ratios(result: Comparison) -> str:
    baselines = result.baselines
    rows = [
        [one.name, *(str(result.ratio(one.name, other)) for other in baselines)]
        for one in result.candidates
        if isinstance(one, Ours) or len(result.candidates) == len(baselines)
    ]
    told = "Time as a share of another's in the same rounds (median, 95 % interval), and CPU time:"
    return f"{told}\n\n" + table(["detector, backend", *(f"of {name}" for name in baselines)], rows)


def _stages(result: Comparison) -> str:
    rows = []
    for candidate in result.candidates:
        stages = result.stages(candidate.name)
        if not stages:
            rows.append([candidate.name, *[NONE] * (len(STAGES) + 1)])
            continue
        share = 1 - stages["infer"] / sum(stages.values())
        rows.append([
            candidate.name,
            *(number(stages[stage], 3) for stage in STAGES),
            f"{share:.1%}",
        ])  # fmt: skip
    header = ["detector, backend", *(f"{stage} ms" for stage in STAGES), "all but infer"]
    return "Stages, medians:\n\n" + table(header, rows)


def _starts(result: Comparison) -> str:
    columns: list[tuple[str, Callable[[Start], float | None], int]] = [
        ("first faces, empty cache, s", lambda start: start.cold, 2),
        ("warm cache, s", lambda start: start.warm, 2),
        ("RSS MiB", lambda start: start.rss_mib, 0),
        (f"after {FRAMES} more", lambda start: start.rss_later_mib, 0),
        ("peak", lambda start: start.peak_mib, 0),
    ]
    rows = [
        [name, *(number(read(start), digits) for _, read, digits in columns)]
        for name, start in result.starts.items()
    ]
    header = ["detector, backend", *(name for name, _, _ in columns)]
    return "A fresh process, from its start to the first faces, and its memory:\n\n" + table(
        header, rows
    )


def _precision(result: Comparison) -> str:
    rows = [
        [
            name,
            number(result.times(name).p50, 2),
            *(number(value, 3) for value in (found.easy, found.medium, found.hard)),
            found.source,
        ]
        for name, found in result.precisions.items()
    ]
    header = ["detector, backend", "p50 ms", "easy", "medium", "hard", "AP from"]
    return "Average precision, and the time it takes:\n\n" + table(header, rows)
