"""Faces: what a detector found in one picture, as NumPy columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeface.errors import InvalidOptionError, missing_extra

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

    from edgeface.imageio import Picture
    from edgeface.quality import Quality

LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")

# On WIDER FACE the default model finds 23 % more faces above it than above 0.5, for 1.3 boxes a
# picture that fit no labelled face instead of 0.2.
DEFAULT_SCORE_THRESHOLD = 0.4


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a ``Faces``.

    Attributes:
        box: float32 (4,), x1, y1, x2, y2 in pixels of the picture.
        score: confidence in 0..1.
        landmarks: float32 (5, 2) pixels in the order of ``LANDMARK_NAMES``, or None.
        track_id: number of the track, or None.
    """

    box: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32] | None = None
    track_id: int | None = None


@dataclass(eq=False)
class Faces:
    """Faces of one picture, best score first; no face is a ``Faces`` of length 0.

    ``faces[0]`` is a ``Face``; a slice, mask or list of indices gives ``Faces``.

    Attributes:
        boxes: float32 (N, 4), x1, y1, x2, y2 in pixels of the picture.
        scores: float32 (N,), confidence in 0..1, descending.
        landmarks: float32 (N, 5, 2), x and y in pixels of left eye, right eye, nose, left and
            right mouth corner as seen in the picture, or None.
        track_ids: int64 (N,), or None.

    Raises:
        InvalidOptionError: the columns do not fit together, or are not finite.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32] | None = None
    track_ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes) if hasattr(self.boxes, "__len__") else 0
        self.boxes = _column("boxes", self.boxes, np.float32, (count, 4))
        self.scores = _column("scores", self.scores, np.float32, (count,))
        if self.landmarks is not None:
            self.landmarks = _column("landmarks", self.landmarks, np.float32, (count, 5, 2))
        if self.track_ids is not None:
            self.track_ids = _column("track_ids", self.track_ids, np.int64, (count,))
        if (self.boxes[:, 2:] < self.boxes[:, :2]).any():
            raise InvalidOptionError(
                "expected boxes as x1, y1, x2, y2 with x1 <= x2 and y1 <= y2, got a box that ends "
                "before it starts; convert x, y, width, height with x2 = x + width"
            )
        if (self.scores[1:] > self.scores[:-1]).any():
            order = np.argsort(-self.scores, kind="stable")
            self.boxes, self.scores = self.boxes[order], self.scores[order]
            self.landmarks = None if self.landmarks is None else self.landmarks[order]
            self.track_ids = None if self.track_ids is None else self.track_ids[order]

    @classmethod
    def empty(cls) -> Faces:
        """No face: length 0, with landmarks of shape (0, 5, 2)."""
        return cls(
            np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32)
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Face]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Face: ...
    @overload
    def __getitem__(self, index: slice | list[int] | NDArray[Any]) -> Faces: ...
    def __getitem__(self, index: int | slice | list[int] | NDArray[Any]) -> Face | Faces:
        landmarks = None if self.landmarks is None else self.landmarks[index]
        tracks = None if self.track_ids is None else self.track_ids[index]
        if isinstance(index, (int, np.integer)):
            track = None if tracks is None else int(tracks)
            return Face(self.boxes[index], float(self.scores[index]), landmarks, track)
        return Faces(self.boxes[index], self.scores[index], landmarks, tracks)

    def __repr__(self) -> str:
        best = f", best score {self.scores[0]:.3f}" if len(self) else ""
        return f"Faces({len(self)}{best})"

    def draw(self, image: Picture, *, scores: bool = True) -> NDArray[np.uint8]:
        """Return a copy of the picture with boxes, landmarks and scores drawn on it.

        Args:
            image: what ``Detector`` takes: BGR uint8 (H, W, 3), a path, bytes or a PIL picture.
            scores: write the score (and the track's number) above each box.

        Returns:
            uint8 (H, W, 3), BGR.

        Raises:
            InvalidImageError: the image cannot be read.
        """
        from edgeface.draw import draw_faces

        return draw_faces(image, self, scores=scores)

    def blur(
        self, image: Picture, *, kind: str = "gaussian", margin: float = 0.2
    ) -> NDArray[np.uint8]:
        """Return a copy of the picture in which the faces cannot be recognised.

        Args:
            image: the picture that the faces are from; as for ``draw``.
            kind: "gaussian", "pixelate", or "solid", which leaves nothing of a face.
            margin: widening of each side of a box, in box sizes, to cover hair and ears.

        Returns:
            uint8 (H, W, 3), BGR.

        Raises:
            InvalidImageError: the image cannot be read.
            InvalidOptionError: unknown kind or negative margin.
        """
        from edgeface.privacy import blur_faces

        return blur_faces(image, self, kind=kind, margin=margin)

    def crop_aligned(self, image: Picture, size: int = 112) -> NDArray[np.uint8]:
        """Cut every face out, turned and scaled to the ArcFace template, for recognition.

        Args:
            image: the picture that the faces are from; as for ``draw``.
            size: pixels of a side of each crop.

        Returns:
            uint8 (N, size, size, 3), BGR.

        Raises:
            InvalidImageError: the image cannot be read.
            InvalidOptionError: the faces have no landmarks, or size is not a positive integer.
        """
        from edgeface.align import align_faces

        if self.landmarks is None:
            raise InvalidOptionError(
                "expected faces with landmarks, got landmarks=None; use a model that has them"
            )
        return align_faces(image, self.landmarks, size)

    def quality(self, image: Picture) -> Quality:
        """Measure how good each face is for recognition: size, sharpness, pose, and overall.

        Args:
            image: the picture that the faces are from; as for ``draw``.

        Raises:
            InvalidImageError: the image cannot be read.
            InvalidOptionError: the faces have no landmarks.
        """
        from edgeface.quality import measure

        return measure(image, self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, pixels rounded to 1/1000 and scores to 1e-6.

        Returns:
            ``{"faces": [{"box": [x1, y1, x2, y2], "score": s, "landmarks": {"left_eye": [x, y],
            ...}, "track_id": n}, ...]}``; landmarks and track_id only where the faces have them.
        """
        return {"faces": [_face_dict(face) for face in self]}

    def to_json(self, indent: int | None = None) -> str:
        """Return ``to_dict`` as a JSON string."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per face: x1, y1, x2, y2, score, left_eye_x, ..., track_id.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise missing_extra("pandas", "samples") from error
        columns: dict[str, NDArray[Any]] = dict(
            zip(("x1", "y1", "x2", "y2"), self.boxes.T, strict=True)
        )
        columns["score"] = self.scores
        if self.landmarks is not None:
            for point, name in enumerate(LANDMARK_NAMES):
                columns[f"{name}_x"] = self.landmarks[:, point, 0]
                columns[f"{name}_y"] = self.landmarks[:, point, 1]
        if self.track_ids is not None:
            columns["track_id"] = self.track_ids
        return pd.DataFrame(columns)

    def to_supervision(self) -> sv.Detections:
        """Return supervision's Detections, class 0, with the landmarks in ``data``.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        try:
            import supervision as sv
        except ImportError as error:
            raise missing_extra("supervision", "samples") from error
        return sv.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=np.zeros(len(self), int),
            tracker_id=None if self.track_ids is None else self.track_ids.copy(),
            data={} if self.landmarks is None else {"landmarks": self.landmarks.copy()},
        )


def _column(name: str, values: ArrayLike, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        column: NDArray[Any] = np.asarray(values, dtype)
    except (TypeError, ValueError) as error:
        raise InvalidOptionError(f"expected numbers in {name}, got {error}") from error
    if column.shape != shape and not (column.size == 0 and shape[0] == 0):
        raise InvalidOptionError(
            f"expected {name} of shape {shape}, one row per box, got {column.shape}"
        )
    if not np.isfinite(column).all():
        raise InvalidOptionError(f"expected finite {name}, got NaN or infinity; drop those rows")
    return column.reshape(shape)


def _face_dict(face: Face) -> dict[str, Any]:
    content: dict[str, Any] = {"box": _plain(face.box, 3), "score": round(face.score, 6)}
    if face.landmarks is not None:
        content["landmarks"] = dict(zip(LANDMARK_NAMES, _plain(face.landmarks, 3), strict=True))
    if face.track_id is not None:
        content["track_id"] = face.track_id
    return content


def _plain(values: NDArray[np.float32], digits: int) -> list[Any]:
    plain: list[Any] = np.round(values.astype(np.float64), digits).tolist()
    return plain
