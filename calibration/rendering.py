"""A conversion report to read: tables in Markdown, and one plot."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeface.calibration.drawing import new_figure, to_png
from edgeface.calibration.gate import PUBLISH, Verdict
from edgeface.calibration.report import ConversionReport, Row
from edgeface.evaluation.wider import SUBSETS

COLOURS = {"fp32": "tab:gray", "fp16": "tab:blue", "int8": "tab:orange"}
MARKERS = {"onnx": "o", "openvino": "s", "tflite": "^", "tensorrt": "D"}


def to_markdown(report: ConversionReport, plot: str = "") -> str:
    """Return the whole report.

    Args:
        report: what was measured.
        plot: name of the plot's file, to show it.
    """
    tools = ", ".join(f"{name} {version}" for name, version in report.tools.items())
    parts = [
        f"# Conversion report: {report.model}",
        f"Evaluation data: {report.data}.  \n"
        f"Machine: {report.machine}, one thread.  \n"
        f"Weights: sha256 `{report.weights[:16]}`.  \n"
        f"Calibration: {f'sha256 `{report.calibration[:16]}`' if report.calibration else 'none'}."
        f"  \nTools: {tools}.",
        "TensorRT's graphs run in ONNX Runtime here, as the reference for their accuracy; their "
        "time here says nothing of TensorRT's.",
        *(_accuracy(report.rows, size) for size in report.rows[0].verdicts),
        _cost(report.rows),
        f"Bounds for publication: {PUBLISH.precision:.0%} of fp32's average precision in every "
        f"subset, {PUBLISH.landmarks - 1:.0%} more landmark error at most.",
    ]
    if plot:
        parts.append(f"![Time of a frame and average precision beside fp32]({plot})")
    return "\n\n".join(parts) + "\n"


def to_plot(report: ConversionReport) -> bytes:
    """Draw time against average precision, both relative to fp32, as PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure, axes = new_figure(7, 4.5)
    for row in report.rows:
        verdict = next(iter(row.verdicts.values()))
        axes.scatter(
            1 / row.speed,
            min(verdict.shares.values(), default=math.nan),
            s=20 + len(row.file.content) / 2e4,
            color=COLOURS[row.file.precision],
            marker=MARKERS[row.file.target],
            alpha=0.8,
            label=f"{row.file.target} {row.file.precision}",
        )
    axes.axhline(PUBLISH.precision, color="tab:red", linestyle="--", linewidth=1)
    axes.set(
        xlabel="time of a frame, relative to the same runtime's fp32",
        ylabel="worst average precision, relative to fp32",
        title=f"{report.model}, {next(iter(report.rows[0].verdicts))}",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
    return to_png(figure)


def _accuracy(rows: Sequence[Row], size: str) -> str:
    lines = [
        f"Accuracy, {size}:",
        "",
        "| target | precision | easy | medium | hard | least share of fp32 | landmark NME % "
        "| of fp32's | within bounds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.file.target} | {row.file.precision} | {_figures(row.verdicts[size])} "
        f"| {'yes' if row.verdicts[size].within(PUBLISH) else 'NO'} |"
        for row in rows
        if size in row.verdicts
    ]
    return "\n".join(lines)


def _figures(verdict: Verdict) -> str:
    precisions = " | ".join(f"{getattr(verdict.candidate, subset):.3f}" for subset in SUBSETS)
    return (
        f"{precisions} | {min(verdict.shares.values(), default=math.nan):.2%} "
        f"| {100 * verdict.candidate.landmark_error:.3f} | {verdict.landmark_ratio:.2%}"
    )


def _cost(rows: Sequence[Row]) -> str:
    lines = [
        "Drift, time and size (SNR in dB of scores, boxes and landmarks beside fp32 in ONNX "
        "Runtime; network alone, 640 x 480, medians of interleaved rounds):",
        "",
        "| target | precision | run by | SNR | ms | times as fast as its fp32 | MB | file |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        snr = " / ".join(
            "exact" if math.isinf(value) else f"{value:.1f}" for value in row.snr_db.values()
        )
        lines.append(
            f"| {row.file.target} | {row.file.precision} | {row.runtime} | {snr} "
            f"| {row.milliseconds:.2f} | {row.speed:.2f} | {len(row.file.content) / 1e6:.2f} "
            f"| {row.file.name or 'not in the bundle'} |"
        )
    return "\n".join(lines)
