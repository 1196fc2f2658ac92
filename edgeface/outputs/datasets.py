"""COCO, YOLO and WIDER FACE: detections as labelling and evaluation tools read them."""

from __future__ import annotations

import json
import os
from typing import Any

from numpy.typing import NDArray

from edgeface.faces import LANDMARK_NAMES
from edgeface.outputs.base import Output, Shot, write_text

VISIBLE = 2  # COCO's flag of a keypoint that is labelled and seen


class Coco(Output):
    """A COCO dataset: images, annotations with keypoints and scores, the category ``face``.

    Boxes are x, y, width, height in pixels. A frame is named as FFmpeg would number it,
    ``clip_000003.jpg``, and says its video and frame.
    """

    about = "a COCO dataset: images, annotations with keypoints, one category"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, shot: Shot) -> None:
        """Take one picture or frame."""
        name = shot.name.as_posix()
        if shot.frame is None:
            origin: dict[str, Any] = {"file_name": name}
        else:
            frame_name = f"{shot.stem.as_posix()}.jpg"
            origin = {"file_name": frame_name, "video": name, "frame": shot.frame}
        image_id = len(self._images) + 1
        size = {"width": shot.width, "height": shot.height}
        self._images.append({"id": image_id, **origin, **size})
        for face in shot.faces.to_dict()["faces"]:
            annotation_id = len(self._annotations) + 1
            self._annotations.append({"id": annotation_id, "image_id": image_id, **_coco(face)})

    def finish(self) -> None:
        """Write the file."""
        category = {
            "id": 1,
            "name": "face",
            "supercategory": "person",
            "keypoints": list(LANDMARK_NAMES),
            "skeleton": [],
        }
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [category],
        }
        write_text(self.path, json.dumps(content) + "\n")


class Yolo(Output):
    """YOLO labels: ``0 x_centre y_centre width height`` as fractions of the picture.

    One file per picture or frame, empty where there is no face; labels have no score.
    """

    about = "YOLO labels, one text file per picture or frame"
    is_folder = True

    def add(self, shot: Shot) -> None:
        """Write the shot's file."""
        boxes = shot.faces.boxes.astype(float).reshape(-1, 2, 2) / (shot.width, shot.height)
        lines = [
            f"0 {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n"
            for (x, y), (width, height) in zip(
                boxes.mean(axis=1), boxes[:, 1] - boxes[:, 0], strict=True
            )
        ]
        write_text(self.path / f"{shot.stem}.txt", "".join(lines))


class Wider(Output):
    """WIDER FACE's result files, one per picture or frame, for the official evaluation."""

    about = "WIDER FACE result files, one per picture or frame"
    is_folder = True

    def add(self, shot: Shot) -> None:
        """Write the shot's file."""
        text = wider_text(shot.stem.name, shot.faces.boxes, shot.faces.scores)
        write_text(self.path / f"{shot.stem}.txt", text)


def wider_text(name: str, boxes: NDArray[Any], scores: NDArray[Any]) -> str:
    """Return a WIDER FACE result file: the name, the count, ``x y width height score`` lines.

    Args:
        name: the picture's name without suffix.
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        scores: (N,).
    """
    lines = [name, str(len(scores))]
    for (x1, y1, x2, y2), score in zip(boxes, scores, strict=True):
        lines.append(f"{x1:.3f} {y1:.3f} {x2 - x1:.3f} {y2 - y1:.3f} {score:.9g}")
    return "\n".join(lines) + "\n"


def _coco(face: dict[str, Any]) -> dict[str, Any]:
    """Return an annotation without its ids, from a face of ``Faces.to_dict``."""
    x1, y1, x2, y2 = face["box"]
    width, height = round(x2 - x1, 3), round(y2 - y1, 3)
    annotation = {
        "category_id": 1,
        "bbox": [x1, y1, width, height],
        "area": round(width * height, 3),
        "iscrowd": 0,
        "score": face["score"],
    }
    if "landmarks" in face:
        points = face["landmarks"].values()
        annotation["keypoints"] = [value for x, y in points for value in (x, y, VISIBLE)]
        annotation["num_keypoints"] = len(points)
    if "track_id" in face:
        annotation["track_id"] = face["track_id"]
    return annotation
