"""Numbers for faces that stay the same from frame to frame.

Association in two steps, strong detections first and weak ones after, as in ByteTrack (Zhang et al.
2022), on boxes widened so that small, quick faces still overlap (C-BIoU, Yang et al. 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from edgeface.errors import InvalidOptionError
from edgeface.faces import DEFAULT_SCORE_THRESHOLD, Faces
from edgeface.motion import Motion, centre_size, face_size, first_spread
from edgeface.smoothing import one_euro

# Each side of a box is widened by that share of it before overlaps are measured.
MARGIN = 0.3
MIN_OVERLAP = 0.1
# The one-euro filter of landmarks: Hz, and Hz per face size and second.
MIN_CUTOFF = 1.0
BETA = 4.0
# Tracks kept at most, so that memory is bounded whatever comes; the latest seen stay.
MAX_TRACKS = 1000

Index = NDArray[np.intp]


@dataclass
class _Tracks(Motion):
    """Columns of T tracks.

    Attributes:
        ids: (T,) numbers.
        hits: (T,) detections that they were made of.
        seen: (T,) seconds of the last detection.
        scores: (T,) of the last detection.
        anchor: (T, 4) place at the last detection.
        landmarks: (T, 5, 2) smoothed, at the last detection; NaN where it had none.
        drift: (T, 5, 2) their speed, pixels per second.
    """

    ids: NDArray[np.int64]
    hits: NDArray[np.int64]
    seen: NDArray[np.float64]
    scores: NDArray[np.float32]
    anchor: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    drift: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: NDArray[np.bool_ | np.intp] | slice) -> _Tracks:
        return _Tracks(*(getattr(self, column.name)[rows] for column in fields(self)))

    def carried_landmarks(self) -> NDArray[np.float32] | None:
        """Landmarks moved along with the box since the last detection, or None."""
        if np.isnan(self.landmarks).any():
            return None
        scale = self.place[:, None, 2:] / np.maximum(self.anchor[:, None, 2:], 1)
        moved = self.place[:, None, :2] + (self.landmarks - self.anchor[:, None, :2]) * scale
        return moved.astype(np.float32)


class Tracker:
    """Gives faces numbers that stay the same from frame to frame, and smooths their landmarks.

    Each frame's faces go through ``update``; where the detector skips a frame, ``predict`` says
    where the faces should be by then. A new face is reported from its ``min_hits``-th detection in
    a row on. A face that is not found again keeps its number for ``max_lost`` seconds. Numbers
    start at 1 and never return. The same calls give the same numbers, and memory is bounded.

    Weak detections continue tracks but start none. To profit, let the detector report them:
    ``Detector(score_threshold=0.2)``.

    Args:
        every: frames from one detection to the next; for whoever feeds the tracker, which itself
            only measures time.
        new_score: least score of a detection that starts a track, 0..1.
        min_hits: detections in a row that make a track one that is reported.
        hold: seconds that a face which is no longer found is still reported, where it should be.
        max_lost: seconds after which a face that is no longer found is given up.

    Raises:
        InvalidOptionError: an option has a value that it does not accept.
    """

    def __init__(
        self,
        *,
        every: int = 1,
        new_score: float = DEFAULT_SCORE_THRESHOLD,
        min_hits: int = 2,
        hold: float = 0.0,
        max_lost: float = 1.0,
    ) -> None:
        self.every = _positive("every", every)
        self._new_score = _within("new_score", new_score, 1.0)
        self._min_hits = _positive("min_hits", min_hits)
        self._max_lost = _within("max_lost", max_lost)
        self._hold = _within("hold", hold, self._max_lost)
        self._tracks = _begun(Faces.empty(), np.empty(0, np.int64), 0.0)
        self._next_id = 1
        self._time = -math.inf

    def update(self, faces: Faces, timestamp: float) -> Faces:
        """Take in what was detected.

        Args:
            faces: all faces of one frame.
            timestamp: when it was taken, in seconds; an earlier one than before starts anew, as
                when a camera reconnects.

        Returns:
            The confirmed faces as detected, with ``track_ids`` and smoothed landmarks; after them,
            for ``hold`` seconds, those that were not found, where they should be.

        Raises:
            InvalidOptionError: the timestamp is no finite number.
        """
        tracks = self._at(timestamp)
        strong = faces.scores >= self._new_score
        everyone = np.arange(len(tracks))
        rows, found = _match(tracks, everyone, faces, np.flatnonzero(strong))
        still = np.setdiff1d(np.flatnonzero(tracks.seen == self._time), rows)
        weak_rows, weak_found = _match(tracks, still, faces, np.flatnonzero(~strong))
        rows, found = np.concatenate([rows, weak_rows]), np.concatenate([found, weak_found])
        best_first = np.argsort(found)  # the order that Faces keeps
        rows, found = rows[best_first], found[best_first]

        fresh = np.setdiff1d(np.flatnonzero(strong), found)
        ids = np.arange(self._next_id, self._next_id + len(fresh))
        self._next_id += len(fresh)
        missed = tracks[np.setdiff1d(everyone, rows)]
        missed = missed[missed.hits >= self._min_hits]
        seen = _join(
            _continued(tracks[rows], faces[found], timestamp), _begun(faces[fresh], ids, timestamp)
        )
        self._tracks = _join(seen, missed)[:MAX_TRACKS]
        self._time = timestamp

        found = np.concatenate([found, fresh])[seen.hits >= self._min_hits]
        seen = seen[seen.hits >= self._min_hits]
        held = missed[timestamp - missed.seen <= self._hold]
        reported = _join(seen, held)
        return Faces(
            np.concatenate([faces.boxes[found], held.boxes()]),
            reported.scores,
            reported.carried_landmarks(),
            reported.ids,
        )

    def predict(self, timestamp: float) -> Faces:
        """Say where the faces that ``update`` last reported should be; changes nothing.

        Args:
            timestamp: seconds, at or after that of the last ``update``.

        Returns:
            Faces with ``track_ids``; scores are those of the last detection.

        Raises:
            InvalidOptionError: the timestamp is no finite number.
        """
        tracks = self._at(timestamp)
        wanted = (tracks.seen == self._time) | (timestamp - tracks.seen <= self._hold)
        tracks = tracks[wanted & (tracks.hits >= self._min_hits)]
        return Faces(tracks.boxes(), tracks.scores, tracks.carried_landmarks(), tracks.ids)

    def last_seen(self) -> dict[int, float]:
        """Return for each living track the timestamp of its last detection."""
        return dict(zip(self._tracks.ids.tolist(), self._tracks.seen.tolist(), strict=True))

    def _at(self, timestamp: float) -> _Tracks:
        """Return the tracks that are alive at a time, where they should be by then."""
        if not (isinstance(timestamp, (int, float, np.number)) and math.isfinite(timestamp)):
            raise InvalidOptionError(f"expected a timestamp in seconds, got {timestamp!r}")
        if timestamp < self._time:
            return self._tracks[:0]
        tracks = self._tracks
        lost = (tracks.seen < self._time) & (timestamp - tracks.seen > self._max_lost)
        return tracks[~lost].after(timestamp - self._time) if len(tracks) else tracks


def _begun(faces: Faces, ids: NDArray[np.int64], timestamp: float) -> _Tracks:
    """Start a track from each face."""
    count = len(faces)
    place = centre_size(faces.boxes)
    landmarks = _landmarks(faces)
    return _Tracks(
        place=place,
        speed=np.zeros((count, 4)),
        spread=first_spread(place),
        ids=ids,
        hits=np.ones(count, np.int64),
        seen=np.full(count, timestamp),
        scores=faces.scores,
        anchor=place,
        landmarks=landmarks,
        drift=np.zeros_like(landmarks),
    )


def _continued(tracks: _Tracks, faces: Faces, timestamp: float) -> _Tracks:
    """Take one detection into each track."""
    landmarks, drift = one_euro(
        _landmarks(faces),
        tracks.landmarks,
        tracks.drift,
        (timestamp - tracks.seen)[:, None, None],
        min_cutoff=MIN_CUTOFF,
        beta=BETA / face_size(tracks.place)[:, :, None],
    )
    corrected = tracks.corrected(faces.boxes)
    return replace(
        corrected,
        hits=tracks.hits + 1,
        seen=np.full(len(faces), timestamp),
        scores=faces.scores,
        anchor=corrected.place,
        landmarks=landmarks,
        drift=drift,
    )


def _join(*parts: _Tracks) -> _Tracks:
    return _Tracks(
        *(
            np.concatenate([getattr(part, column.name) for part in parts])
            for column in fields(_Tracks)
        )
    )


def _landmarks(faces: Faces) -> NDArray[np.float64]:
    if faces.landmarks is None:
        return np.full((len(faces), 5, 2), np.nan)
    return faces.landmarks.astype(np.float64)


def _match(tracks: _Tracks, rows: Index, faces: Faces, columns: Index) -> tuple[Index, Index]:
    """Pair tracks with faces, largest overlaps first.

    Measured on video and on simulated crowds, the best total overlap (Hungarian method) switches
    as many numbers as this does.

    Returns:
        Of equal length: rows of the tracks, and the face of each.
    """
    overlaps = _overlaps(tracks.boxes()[rows], faces.boxes[columns])
    largest_first = np.argsort(-overlaps, axis=None, kind="stable")
    largest_first = largest_first[: np.count_nonzero(overlaps >= MIN_OVERLAP)]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(*np.unravel_index(largest_first, overlaps.shape), strict=True):
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return rows[list(pairs)], columns[list(pairs.values())]


def _overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU (T, N) of boxes (T, 4) and (N, 4), each widened by ``MARGIN``."""
    a, b = _widened(first)[:, None], _widened(second)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.maximum(sides, 0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (a, b)]
    shares: NDArray[np.float64] = common / np.maximum(areas[0] + areas[1] - common, 1e-9)
    return shares


def _widened(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    place = centre_size(boxes)
    half = place[:, 2:] * (0.5 + MARGIN)
    return np.concatenate([place[:, :2] - half, place[:, :2] + half], 1)


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InvalidOptionError(f"expected {name} to be a positive integer, got {value!r}")
    return int(value)


def _within(name: str, value: float, most: float = math.inf) -> float:
    if not isinstance(value, (int, float, np.floating)) or not 0 <= value <= most:
        upper = "" if math.isinf(most) else f" and at most {most:g}"
        raise InvalidOptionError(f"expected {name} of at least 0{upper}, got {value!r}")
    return float(value)
