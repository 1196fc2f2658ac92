"""A quantised artifact on its way to a bundle: judged, mended where it fails, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from edgeface.calibration.accuracy import Accuracy, EvaluationData, measure
from edgeface.calibration.fallback import Fallback, keep_worst_float
from edgeface.calibration.gate import FLOOR, PUBLISH, Verdict, require
from edgeface.calibration.latency import interleaved
from edgeface.calibration.sensitivity import LayerCost, Quantise, layer_costs, worst_first
from edgeface.calibration.trial import RUNNERS, Geometry, Picture, Trial
from edgeface.evaluation.wider import spread
from edgeface.imageio import read_image
from edgeface.runtimes.base import Outputs

Track: TypeAlias = Callable[[Sequence[Any], str], Iterable[Any]]

# What an artifact for that target is made of, and judged beside.
SOURCES = {"onnx": "onnx", "openvino": "onnx", "tensorrt": "onnx", "tflite": "tflite"}
EXPLAINED_PICTURES = 8
AP_PICTURES = 60
AP_LAYERS = 5
ROUNDS = 40


@dataclass(frozen=True)
class Published:
    """A quantised artifact that got through.

    Attributes:
        content: the artifact.
        verdict: its accuracy beside fp32's.
        accepted_drop: it got through only because a drop was accepted.
        fallback: what it took, where layers had to stay in float.
        costs: what each layer costs, where that was measured.
    """

    content: bytes
    verdict: Verdict
    accepted_drop: bool = False
    fallback: Fallback | None = None
    costs: tuple[LayerCost, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return {
            **self.verdict.to_dict(),
            **({"accepted_accuracy_drop": True} if self.accepted_drop else {}),
            **(self.fallback.to_dict() if self.fallback else {}),
        }


class Judge:
    """Measures quantised artifacts of one model beside its fp32, which it measures once.

    Args:
        geometry: anchors and padding of the model.
        data: pictures that neither training nor calibration saw.
        track: shows progress over items with a description.
        input_sizes: (width, height) pairs that the artifacts accept; empty: any.
    """

    def __init__(
        self,
        geometry: Geometry,
        data: EvaluationData,
        track: Track = lambda items, _: items,
        *,
        input_sizes: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._input_sizes = tuple(input_sizes)
        self._geometry = geometry
        self._data = data
        self._track = track
        self._references: dict[tuple[bytes, int], Accuracy] = {}

    def verdict(self, target: str, source: bytes, content: bytes) -> Verdict:
        """Measure an artifact beside the float32 file that it was made of, on all of the data."""
        return self._verdict(target, source, content, self._data)

    def costs(
        self, target: str, source: bytes, layers: Sequence[str], quantise: Quantise
    ) -> tuple[LayerCost, ...]:
        """Measure what each layer costs, with the average precision of the worst few.

        Args:
            target: what the artifacts are made for.
            source: the float32 file.
            layers: all layers that can be quantised.
            quantise: makes an artifact with the given layers kept in float.
        """
        frames = self._frames(target, source, EXPLAINED_PICTURES)
        costs = layer_costs(
            layers,
            quantise,
            partial(self._run, target),
            self._run(SOURCES[target], source, frames),
            frames,
            lambda names: self._track(names, f"layers for {target}"),
        )
        every, few = frozenset(layers), self._data.limit(AP_PICTURES)
        measured = {}
        for cost in worst_first(costs)[:AP_LAYERS]:
            verdict = self._verdict(target, source, quantise(every - {cost.layer}), few)
            measured[cost.layer] = verdict.reference.hard - verdict.candidate.hard
        return tuple(replace(cost, ap=measured.get(cost.layer)) for cost in costs)

    def milliseconds(self, target: str, source: bytes, *contents: bytes) -> list[float]:
        """Time the network alone at long side 640, the artifacts taking turns."""
        [frame] = self._frames(target, source, 1)
        with ExitStack() as stack:
            trials = [stack.enter_context(self._trial(target, one)) for one in contents]
            calls = {number: partial(one.infer, frame) for number, one in enumerate(trials)}
            return list(interleaved(calls, ROUNDS).values())

    def _verdict(self, target: str, source: bytes, content: bytes, data: EvaluationData) -> Verdict:
        key = source, len(data.pictures)
        if key not in self._references:
            self._references[key] = self._measure(SOURCES[target], source, data, "fp32")
        candidate = self._measure(target, content, data, f"int8 for {target}")
        return Verdict(self._references[key], candidate)

    def _measure(self, target: str, content: bytes, data: EvaluationData, label: str) -> Accuracy:
        with self._trial(target, content) as trial:
            return measure(trial, data, lambda items: self._track(items, f"judging {label}"))

    def _trial(self, target: str, content: bytes) -> Trial:
        return Trial(content, RUNNERS[target], self._geometry, input_sizes=self._input_sizes)

    def _run(self, target: str, content: bytes, frames: Sequence[Picture]) -> list[Outputs]:
        with self._trial(target, content) as trial:
            return [
                {name: out.copy() for name, out in trial.infer(frame).items()} for frame in frames
            ]

    def _frames(self, target: str, source: bytes, count: int) -> list[Picture]:
        with self._trial(SOURCES[target], source) as trial:
            pictures = spread(self._data.pictures, count)
            return [trial.place(read_image(picture.path))[0] for picture in pictures]


def publish(
    target: str,
    source: bytes,
    layers: Sequence[str],
    quantise: Quantise,
    judge: Judge,
    *,
    sketch: Quantise | None = None,
    accept_drop: bool = False,
    explain: bool = False,
) -> Published:
    """Quantise, and let through what is accurate enough.

    Where it is not, the layers that cost most stay in float, as few as it takes.

    Args:
        target: "onnx", "openvino", "tflite" or "tensorrt".
        source: the float32 file: TFLite for "tflite", ONNX for the others.
        layers: all layers that can be quantised.
        quantise: makes an artifact with the given layers kept in float.
        judge: measures it.
        sketch: a cheaper quantiser, good enough to find the layers that cost most.
        accept_drop: be content with ``gate.FLOOR``.
        explain: measure what each layer costs, even where nothing has to be mended.

    Raises:
        AccuracyError: it is not accurate enough, even with half of its layers in float.
    """
    bounds = FLOOR if accept_drop else PUBLISH
    content = quantise(frozenset())
    verdict = judge.verdict(target, source, content)
    fine = verdict.within(bounds)
    costs: tuple[LayerCost, ...] = ()
    if explain or not fine:
        costs = judge.costs(target, source, layers, sketch or quantise)
    fallback = None
    if not fine:
        order = [cost.layer for cost in worst_first(costs)]
        all_int8 = content
        content, kept, verdict = keep_worst_float(
            order, quantise, partial(judge.verdict, target, source), bounds
        )
        after, before = judge.milliseconds(target, source, content, all_int8)
        fallback = Fallback(kept, after, before)
    accepted = require(verdict, f"int8 for {target}", accept_drop=accept_drop)
    return Published(content, verdict, accepted, fallback, costs)
