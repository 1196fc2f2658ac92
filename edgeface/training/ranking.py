"""One ranking for faces of all sizes: every anchor's logit scaled and shifted (Platt 1999).

How a tiny face scores against a large one is a by-product of a net's losses: each size is ranked
well, but false alarms among the tiny ones outscore faces that are large. Three numbers for each
anchor mend that: a scale, a shift, and a slope over the height of the box that the anchor predicts.
They cost nothing: that height is the exponential of a channel of the box convolution, so all of
them fold into the class convolution. They are those that give the best mean average precision on
training pictures, over faces as high as those of WIDER FACE's subsets, at both operating points.
One shift of all logits then lets as many boxes pass the detector's default threshold as before.
Tiny faces without a label count as false alarms for large ones too, so the subsets are in each
other's way; how much each counts is the caller's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from edgeface.anchors import AnchorSpec, level_priors
from edgeface.errors import TrainingError
from edgeface.evaluation.average_precision import Detections, wider_average_precision
from edgeface.evaluation.run import MAX_FACES, NMS_THRESHOLD, SCORE_THRESHOLD
from edgeface.evaluation.wider import WiderImage
from edgeface.faces import DEFAULT_SCORE_THRESHOLD
from edgeface.imageio import read_image
from edgeface.nets import DetectorNet
from edgeface.nets.heads.anchor import AnchorHead, LevelHead
from edgeface.nms import nms
from edgeface.postprocess import decode, sigmoid
from edgeface.training.validation import LONG_SIDE, TorchDetector

Floats = NDArray[np.float64]

LONG_SIDES = (LONG_SIDE, None)
# Least heights in pixels of the faces of WIDER FACE's subsets (Yang et al. 2016, section 3.2).
HEIGHTS = {"easy": 50, "medium": 30, "hard": 10}
EQUAL = (1.0, 1.0, 1.0)
STEPS = (0.2, 0.1)
LEAST_GAIN = 2e-5


@dataclass(frozen=True)
class Scaling:
    """What becomes of the logits: ``scales * logit + shifts + slopes * stretch``, by anchor.

    ``stretch`` is the natural logarithm of the box's height over the anchor's.

    Attributes:
        scales: float64 (A,), A anchors of a cell of each level in turn, finest level first.
        shifts: float64 (A,).
        slopes: float64 (A,).
    """

    scales: Floats
    shifts: Floats
    slopes: Floats

    @classmethod
    def none(cls, anchors: AnchorSpec) -> Scaling:
        """Every logit stays as it is."""
        count = sum(level.per_cell for level in anchors.levels)
        return cls(np.ones(count), np.zeros(count), np.zeros(count))

    def moved(self, index: int, change: float) -> Scaling:
        """This one with one of its numbers changed: scales, shifts, then slopes."""
        values = np.concatenate([self.scales, self.shifts, self.slopes])
        values[index] += change
        return Scaling(*np.split(values, 3))


@dataclass(frozen=True)
class Candidates:
    """What NMS leaves of one picture, and the anchors that it came from.

    Attributes:
        boxes: float64 (N, 4), x1, y1, x2, y2 in pixels of the picture.
        logits: float32 (N,).
        stretches: float64 (N,), as ``Scaling`` has it.
        anchors: int (N,): number of the anchor, as ``Scaling`` counts them.
        picture: its labels.
    """

    boxes: Floats
    logits: NDArray[np.float32]
    stretches: Floats
    anchors: NDArray[np.intp]
    picture: WiderImage

    def scaled(self, scaling: Scaling) -> Floats:
        """The logits of a scaling, float64 (N,)."""
        return (
            scaling.scales[self.anchors] * self.logits
            + scaling.shifts[self.anchors]
            + scaling.slopes[self.anchors] * self.stretches
        )

    def scored(self, scaling: Scaling) -> Detections:
        """Boxes with the scores of scaled logits."""
        return Detections.sort(self.boxes, sigmoid(self.scaled(scaling).astype(np.float32)))


def find_candidates(
    net: DetectorNet, pictures: Iterable[WiderImage], long_side: int | None
) -> list[Candidates]:
    """Look at every picture at an operating point; NMS is by the scores as they are.

    Raises:
        InvalidImageError: a picture is unreadable.
    """
    detector = TorchDetector(net, long_side)
    return [_candidates(detector, net.anchors, picture) for picture in pictures]


def _candidates(detector: TorchDetector, spec: AnchorSpec, picture: WiderImage) -> Candidates:
    outputs, placed = detector.outputs(read_image(picture.path))
    size = placed.network_height, placed.network_width
    boxes, logits, stretches, anchors, first = [], [], [], [], 0
    for level in spec.levels:
        own = outputs[f"logit_{level.stride}"].reshape(-1)
        index = (sigmoid(own) > SCORE_THRESHOLD).nonzero()[0]
        deltas = outputs[f"delta_{level.stride}"].reshape(-1, 4)[index]
        boxes.append(decode(deltas, level_priors(level, *size)[index], spec.variances))
        logits.append(own[index])
        stretches.append(deltas[:, 3].astype(np.float64) * spec.variances[1])
        anchors.append(first + index % level.per_cell)
        first += level.per_cell
    corners = np.concatenate(boxes).astype(np.float64) / (placed.scale_x, placed.scale_y)
    flat, found = corners.reshape(-1, 4), np.concatenate(logits)
    kept = nms(flat, sigmoid(found), NMS_THRESHOLD)[:MAX_FACES]
    return Candidates(
        flat[kept],
        found[kept],
        np.concatenate(stretches)[kept],
        np.concatenate(anchors)[kept],
        picture,
    )


def average_precision(found: Sequence[Candidates], scaling: Scaling) -> dict[str, float]:
    """AP by the subsets of HEIGHTS."""
    faces = [one.picture.faces for one in found]
    keep = {
        subset: [
            one.picture.keep["hard"] & (boxes[:, 3] - boxes[:, 1] >= least)
            for one, boxes in zip(found, faces, strict=True)
        ]
        for subset, least in HEIGHTS.items()
    }
    return wider_average_precision([one.scored(scaling) for one in found], faces, keep)


def fit(
    views: Sequence[Sequence[Candidates]],
    anchors: AnchorSpec,
    importance: Sequence[float] = EQUAL,
) -> Scaling:
    """Climb to the scaling of the best mean AP, one number at a time; see ``keep_count``.

    Args:
        views: candidates of the pictures at each operating point; a subset of which they have no
            face does not count.
        anchors: of the net.
        importance: how much each subset of HEIGHTS counts in the mean.
    """

    def quality(scaling: Scaling) -> float:
        values = np.array([[*average_precision(found, scaling).values()] for found in views])
        weights = np.where(np.isnan(values), 0.0, importance)
        total = float(weights.sum())
        return float((weights * np.nan_to_num(values)).sum() / total) if total else 0.0

    best = climb(Scaling.none(anchors), quality)
    return keep_count([one for found in views for one in found], best)


def keep_count(found: Sequence[Candidates], scaling: Scaling) -> Scaling:
    """Shift all logits alike, so that as many boxes pass the default threshold as unscaled."""
    before = np.sort(np.concatenate([one.logits for one in found]))[::-1]
    after = np.sort(np.concatenate([one.scaled(scaling) for one in found]))[::-1]
    count = int((sigmoid(before) >= DEFAULT_SCORE_THRESHOLD).sum())
    if not count:
        return scaling
    return replace(scaling, shifts=scaling.shifts + before[count - 1] - after[count - 1])


def climb(start: Scaling, quality: Callable[[Scaling], float]) -> Scaling:
    """Change numbers by a step as long as one of them gets better by it, then by smaller steps."""
    best, height = start, quality(start)
    for step in STEPS:
        better = True
        while better:
            better = False
            for index, change in product(range(3 * len(start.scales)), (-step, step)):
                one = best.moved(index, change)
                if (one.scales > 0).all() and (value := quality(one)) > height + LEAST_GAIN:
                    best, height, better = one, value, True
    return best


@torch.no_grad()
def apply(net: DetectorNet, scaling: Scaling) -> None:
    """Fold a scaling into the class convolutions.

    Raises:
        TrainingError: the net's head has no convolution of each level's own.
    """
    first = 0
    for level in own_heads(net):
        own = slice(first, first := first + level.anchors_per_cell)
        scales, shifts, slopes = (
            torch.from_numpy(numbers[own]).float()
            for numbers in (scaling.scales, scaling.shifts, scaling.slopes)
        )
        slopes = slopes * net.anchors.variances[1]
        both = scales.repeat_interleave(2)
        assert level.classes.bias is not None and level.boxes.bias is not None
        level.classes.weight *= both[:, None, None, None]
        level.classes.weight[1::2] += slopes[:, None, None, None] * level.boxes.weight[3::4]
        level.classes.bias *= both
        level.classes.bias[1::2] += shifts + slopes * level.boxes.bias[3::4]


def own_heads(net: DetectorNet) -> list[LevelHead]:
    """The head of each level.

    Raises:
        TrainingError: the net's head has no convolution of each level's own.
    """
    if not isinstance(net.head, AnchorHead):
        raise TrainingError(
            f"expected a net with a {AnchorHead.__name__}, whose levels have classes of their own, "
            f"got '{net.preset}' with a {type(net.head).__name__}; its scores stay as they are"
        )
    return [head for head in net.head.levels if isinstance(head, LevelHead)]
