"""Evaluation while training, on the held-out slice, with the SDK's own pre- and postprocess."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeface.evaluation.run import MAX_FACES, NMS_THRESHOLD, SCORE_THRESHOLD, evaluate
from edgeface.evaluation.wider import SUBSETS, WiderImage
from edgeface.faces import Faces
from edgeface.nets import DetectorNet
from edgeface.nets.export import ExportGraph, output_names
from edgeface.postprocess import postprocess
from edgeface.preprocess import Letterbox, letterbox
from edgeface.training.dataset import Root, held_out
from edgeface.training.labels import Annotation

LONG_SIDE = 640


class TorchDetector:
    """A net as a callable from BGR uint8 (H, W, 3) to Faces, at evaluation settings."""

    def __init__(self, net: DetectorNet, long_side: int | None = LONG_SIDE) -> None:
        self._graph = ExportGraph(net)
        self._device = next(net.parameters()).device
        self._anchors = net.anchors
        self._names = output_names(net.anchors)
        self._pad_value = tuple(round(value) for value in net.mean)
        self._long_side = long_side

    @torch.inference_mode()
    def outputs(self, image: NDArray[np.uint8]) -> tuple[dict[str, NDArray[Any]], Letterbox]:
        """The graph's outputs for one picture, by name, and how it was put into the frame."""
        blue, green, red = self._pad_value
        frame, placed = letterbox(
            image,
            self._long_side,
            stride=self._anchors.max_stride,
            pad_value=(blue, green, red),
        )
        outputs = self._graph(torch.from_numpy(frame).to(self._device))
        named = zip(self._names, outputs, strict=True)
        return {name: out.cpu().numpy() for name, out in named}, placed

    def __call__(self, image: NDArray[np.uint8]) -> Faces:
        """Detect the faces of one picture."""
        outputs, placed = self.outputs(image)
        return postprocess(
            outputs,
            self._anchors,
            placed,
            score_threshold=SCORE_THRESHOLD,
            nms_threshold=NMS_THRESHOLD,
            max_faces=MAX_FACES,
        )


def as_evaluated(annotation: Annotation) -> WiderImage:
    """A labelled picture in which every valid face counts, in each subset."""
    return WiderImage(
        annotation.image,
        annotation.event,
        annotation.image.stem,
        annotation.boxes.astype(np.float64),
        dict.fromkeys(SUBSETS, ~annotation.ignore),
    )


def held_out_pictures(roots: Sequence[Root], share: float) -> list[WiderImage]:
    """Fully labelled pictures that training does not see; every valid face counts."""
    return [
        as_evaluated(annotation)
        for root in roots
        if not root.partial
        for annotation in root.pictures.annotations
        if len(annotation.boxes) and held_out(annotation.image.stem, share)
    ]


def held_out_figures(net: DetectorNet, pictures: Sequence[WiderImage]) -> dict[str, float]:
    """AP at IoU 0.5 and mAP@0.5:0.95 on the held-out pictures, long side 640."""
    if not pictures:
        return {}
    report = evaluate(TorchDetector(net), pictures)
    return {"ap": report.hard, "map": report.map}
