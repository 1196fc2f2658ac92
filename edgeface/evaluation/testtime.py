"""What published figures add at test time: several sizes, the mirror image, box voting."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.evaluation.average_precision import box_iou
from edgeface.evaluation.protocols import Protocol
from edgeface.evaluation.run import Predict
from edgeface.faces import Faces
from edgeface.nms import nms

MIRRORED_LANDMARKS = [1, 0, 2, 4, 3]

Image = NDArray[np.uint8]


class ManyViews:
    """A detector that looks at a picture in every way of a protocol, as a detector of its own.

    Args:
        predict: gives all boxes of a view that score above the protocol's threshold, without NMS;
            where the protocol has short edges, at the size of the view.
        protocol: the views, and what becomes of the boxes.
    """

    def __init__(self, predict: Predict, protocol: Protocol) -> None:
        protocol.check()
        self._predict = predict
        self._protocol = protocol

    def __call__(self, image: Image) -> Faces:
        """Detect the faces of a BGR picture uint8 (H, W, 3); boxes in its pixels."""
        found = union(list(self._views(image)))[: self._protocol.top_k]
        if self._protocol.box_voting is not None:
            return vote(found, self._protocol.box_voting)[: self._protocol.max_faces]
        kept = nms(found.boxes, found.scores, self._protocol.nms_threshold)
        return found[kept[: self._protocol.max_faces]]

    def _views(self, image: Image) -> Iterator[Faces]:
        height, width = image.shape[:2]
        for edge in self._protocol.short_edges or (min(height, width),):
            scale = edge / min(height, width)
            size = (max(round(width * scale), 1), max(round(height * scale), 1))
            view = image if scale == 1 else np.asarray(cv2.resize(image, size), np.uint8)
            faces = self._predict(view)
            yield resized(faces, width / size[0], height / size[1])
            if self._protocol.flip:
                faces = self._predict(np.ascontiguousarray(view[:, ::-1]))
                yield resized(mirrored(faces, size[0]), width / size[0], height / size[1])


def resized(faces: Faces, horizontal: float, vertical: float) -> Faces:
    """Faces of a picture that is so many times as wide and high."""
    scale = np.array([horizontal, vertical], np.float32)
    landmarks = None if faces.landmarks is None else faces.landmarks * scale
    return Faces(faces.boxes * np.tile(scale, 2), faces.scores, landmarks)


def mirrored(faces: Faces, width: int) -> Faces:
    """Faces of the mirror image of a picture of that width; left and right landmarks swap."""
    boxes = faces.boxes.copy()
    boxes[:, [0, 2]] = width - faces.boxes[:, [2, 0]]
    landmarks = faces.landmarks
    if landmarks is not None:
        landmarks = landmarks[:, MIRRORED_LANDMARKS].copy()
        landmarks[..., 0] = width - landmarks[..., 0]
    return Faces(boxes, faces.scores, landmarks)


def union(parts: list[Faces]) -> Faces:
    """All faces of several views, best score first."""
    scores = np.concatenate([part.scores for part in parts])
    order = np.argsort(-scores, kind="stable")
    points = [part.landmarks for part in parts if part.landmarks is not None]
    return Faces(
        np.concatenate([part.boxes for part in parts])[order],
        scores[order],
        np.concatenate(points)[order] if len(points) == len(parts) else None,
    )


def vote(faces: Faces, threshold: float) -> Faces:
    """Box voting (Gidaris and Komodakis 2015, section 5; RetinaFace uses it at IoU 0.4).

    The best face takes all whose IoU with it reaches the threshold: its box and landmarks become
    their mean, weighted by the scores; its score stays. Then the best of the rest does so.

    Args:
        faces: best score first.
        threshold: IoU from which on a box has a vote.
    """
    left = np.arange(len(faces))
    boxes, scores, landmarks = [], [], []
    while len(left):
        own = box_iou(faces.boxes[left[:1]], faces.boxes[left])[0] >= threshold
        own[0] = True
        voters, left = left[own], left[~own]
        weights = faces.scores[voters] / faces.scores[voters].sum()
        boxes.append(weights @ faces.boxes[voters])
        scores.append(faces.scores[voters[0]])
        if faces.landmarks is not None:
            landmarks.append(np.tensordot(weights, faces.landmarks[voters], 1))
    if not boxes:
        return faces
    return Faces(
        np.stack(boxes).astype(np.float32),
        np.array(scores, np.float32),
        np.stack(landmarks).astype(np.float32) if landmarks else None,
    )
