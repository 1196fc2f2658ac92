"""Which layers quantisation hurts: each is quantised alone, and its noise is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeface.calibration.trial import Picture
from edgeface.converters.divergence import snr_db
from edgeface.evaluation.run import SCORE_THRESHOLD
from edgeface.runtimes.base import OUTPUTS, Outputs

KeepFloat: TypeAlias = frozenset[str]
Quantise: TypeAlias = Callable[[KeepFloat], bytes]
Run: TypeAlias = Callable[[bytes, Sequence[Picture]], list[Outputs]]
Track: TypeAlias = Callable[[Sequence[str]], Iterable[str]]

LEAST_ANCHORS = 50
KINDS = {"logit": "scores", "delta": "boxes", "landmark": "landmarks"}


@dataclass(frozen=True)
class LayerCost:
    """What it costs to quantise one layer, and nothing else.

    Attributes:
        layer: its name, as the quantiser knows it.
        logit: signal to noise of the scores in dB, fp32 being the signal; infinite where equal.
        delta: of the box deltas, at the anchors that become faces.
        landmark: of the landmark offsets, likewise.
        ap: average precision lost, of the hard subset; None where it was not measured.
    """

    layer: str
    logit: float
    delta: float
    landmark: float
    ap: float | None = None

    @property
    def worst(self) -> float:
        """The lowest of the three."""
        return min(self.logit, self.delta, self.landmark)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; None stands for infinity and for what was not measured."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def layer_costs(
    layers: Sequence[str],
    quantise: Quantise,
    run: Run,
    expected: Sequence[Outputs],
    frames: Sequence[Picture],
    track: Track = iter,
) -> list[LayerCost]:
    """Quantise each layer alone and measure the noise behind it.

    Args:
        layers: names of all layers that can be quantised, in the order in which they run.
        quantise: makes an artifact with the given layers kept in float.
        run: runs an artifact on frames.
        expected: fp32's outputs for the frames.
        frames: uint8 (1, H, W, 3) frames that calibration did not see.
        track: shows progress over the layers.

    Returns:
        One cost per layer, in the same order.
    """
    every = frozenset(layers)
    return [
        LayerCost(layer, **relevant_snr(expected, run(quantise(every - {layer}), frames)))
        for layer in track(layers)
    ]


def relevant_snr(expected: Sequence[Outputs], got: Sequence[Outputs]) -> dict[str, float]:
    """Signal to noise in dB of scores, boxes and landmarks, where postprocessing reads them.

    That is at the anchors whose score is above the threshold of evaluation, or at the best few
    dozen where fewer are.

    Args:
        expected: fp32's outputs for some frames.
        got: another artifact's for the same frames.

    Returns:
        dB by kind: "logit", "delta" and "landmark".
    """
    columns = [_relevant(one, other) for one, other in zip(expected, got, strict=True)]
    return {
        kind: snr_db(
            np.concatenate([signal[kind] for signal, _ in columns]),
            np.concatenate([noisy[kind] for _, noisy in columns]),
        )
        for kind in OUTPUTS
    }


def worst_first(costs: Iterable[LayerCost]) -> list[LayerCost]:
    """Sort: the layers that cost most come first."""
    return sorted(costs, key=lambda cost: cost.worst)


def to_markdown(costs: Sequence[LayerCost], count: int = 15) -> str:
    """Return a table of the layers that cost most."""
    rows = [
        "| layer, quantised alone | scores dB | boxes dB | landmarks dB | AP lost |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {cost.layer} | {_decibels(cost.logit)} | {_decibels(cost.delta)} "
        f"| {_decibels(cost.landmark)} | {'–' if cost.ap is None else f'{cost.ap:.4f}'} |"
        for cost in worst_first(costs)[:count]
    ]
    return "\n".join(rows)


def plot(costs: Sequence[LayerCost], title: str) -> bytes:
    """Draw the noise of every layer, in the order in which they run, as PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    from edgeface.calibration.drawing import new_figure, to_png

    figure, axes = new_figure(9, 1.2 + 0.17 * len(costs))
    rows = np.arange(len(costs))
    for kind, label in KINDS.items():
        noise = [max(0.0, 1 / 10 ** (getattr(cost, kind) / 20)) for cost in costs]
        axes.plot(noise, rows, "o", label=label, markersize=4)
    axes.set_yticks(rows, [cost.layer for cost in costs], fontsize=6)
    axes.invert_yaxis()
    axes.set(xlabel="noise relative to the signal, the layer quantised alone", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return to_png(figure)


def _relevant(
    expected: Outputs, got: Outputs
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    flat, noisy = _flatten(expected), _flatten(got)
    scores = flat["logit"].ravel()
    threshold = math.log(SCORE_THRESHOLD / (1 - SCORE_THRESHOLD))
    chosen = np.flatnonzero(scores > threshold)
    if len(chosen) < LEAST_ANCHORS:
        chosen = np.argsort(-scores, kind="stable")[:LEAST_ANCHORS]
    for kind in ("delta", "landmark"):
        flat[kind], noisy[kind] = flat[kind][chosen], noisy[kind][chosen]
    return flat, noisy


def _flatten(outputs: Outputs) -> dict[str, NDArray[np.float32]]:
    """Join the levels: (A, values) by kind."""
    return {
        kind: np.concatenate(
            [
                values.reshape(-1, values.shape[-1])
                for name, values in sorted(outputs.items())
                if name.startswith(f"{kind}_")
            ]
        )
        for kind in OUTPUTS
    }


def _decibels(value: float) -> str:
    return "exact" if math.isinf(value) else f"{value:.1f}"
