"""Tracks of boxes whose paths are known, and of people who can be seen in the shared videos."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface import Faces, Tracker
from edgeface.errors import InvalidOptionError
from edgeface.tracking import MAX_TRACKS

TEMPLATE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def faces(*centres: tuple[float, float], side: float = 40, scores: tuple[float, ...] = ()) -> Faces:
    """Square faces around centres; scores fall from 0.9 unless given."""
    boxes = np.array([(x - side / 2, y - side / 2, x + side / 2, y + side / 2) for x, y in centres])
    boxes = boxes.reshape(-1, 4)
    landmarks = boxes[:, None, :2] + TEMPLATE * side
    return Faces(boxes, scores or 0.9 - 0.01 * np.arange(len(boxes)), landmarks)


def by_id(found: Faces) -> dict[int, NDArray[np.float32]]:
    """Centres of boxes by track."""
    assert found.track_ids is not None
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    return dict(zip(found.track_ids.tolist(), centres, strict=True))


def test_ids_stay_with_faces_that_move_and_change_places_in_the_list() -> None:
    tracker = Tracker(min_hits=1)
    for frame in range(50):
        left, right = (100 + 3.0 * frame, 100), (500 - 3.0 * frame, 300)
        scores = (0.9, 0.6) if frame % 2 else (0.6, 0.9)
        found = by_id(tracker.update(faces(left, right, scores=scores), frame / 25))
        assert set(found) == {1, 2}
        first = 2 if np.allclose(found[2], left) else 1
        if frame == 0:
            of_left = first
        assert found[of_left] == pytest.approx(left)
        assert found[3 - of_left] == pytest.approx(right)


def test_crossing_faces_keep_their_ids() -> None:
    """Two faces pass each other, 30 pixels apart, so that their boxes overlap."""
    tracker = Tracker(min_hits=1)
    for frame in range(61):
        down, up = (100 + 5.0 * frame, 100), (400 - 5.0 * frame, 130)
        found = by_id(tracker.update(faces(down, up), frame / 25))
        assert found[1] == pytest.approx(down)
        assert found[2] == pytest.approx(up)


def test_boxes_are_reported_as_detected() -> None:
    tracker = Tracker(min_hits=1)
    for frame in range(5):
        detected = faces((100 + 7.3 * frame, 90.1), (300, 200 - 3.1 * frame))
        found = tracker.update(detected, frame / 25)
        assert np.array_equal(found.boxes, detected.boxes)
        assert np.array_equal(found.scores, detected.scores)


def test_a_face_is_reported_from_its_second_detection_on() -> None:
    tracker = Tracker()
    assert len(tracker.update(faces((50, 50)), 0.0)) == 0
    assert tracker.update(faces((50, 50)), 0.1).track_ids == [1]


def test_a_flash_is_never_reported() -> None:
    tracker = Tracker()
    for frame in range(30):
        detected = faces((50, 50)) if frame % 2 else Faces.empty()
        assert len(tracker.update(detected, frame / 25)) == 0


def test_a_face_that_returns_in_time_keeps_its_id() -> None:
    def number_after(gap: float) -> int:
        tracker = Tracker(min_hits=1, max_lost=1.0)
        tracker.update(faces((50, 50)), 0.0)
        for seconds in np.arange(0.1, gap, 0.1):
            assert len(tracker.update(Faces.empty(), float(seconds))) == 0
        (number,) = by_id(tracker.update(faces((55, 50)), gap))
        return number

    assert number_after(0.9) == 1
    assert number_after(1.2) == 2


def test_slow_cameras_keep_ids_however_long_a_frame_takes() -> None:
    tracker = Tracker(max_lost=1.0)
    for hour in range(3):
        found = tracker.update(faces((50, 50)), 3600.0 * hour)
    assert by_id(found).keys() == {1}


def test_weak_detections_continue_tracks_but_start_none() -> None:
    tracker = Tracker(new_score=0.5, min_hits=1)
    assert len(tracker.update(faces((50, 50), scores=(0.3,)), 0.0)) == 0
    tracker.update(faces((50, 50), scores=(0.8,)), 0.1)
    weak = tracker.update(faces((52, 50), scores=(0.3,)), 0.2)
    assert weak.track_ids == [1]
    assert weak.scores == pytest.approx([0.3])


def test_a_strong_detection_comes_before_a_weak_one() -> None:
    tracker = Tracker(min_hits=1)
    tracker.update(faces((50, 50)), 0.0)
    found = tracker.update(faces((58, 50), (51, 50), scores=(0.9, 0.2)), 0.1)
    assert by_id(found).keys() == {1}
    assert by_id(found)[1] == pytest.approx((58, 50))


def test_held_faces_are_reported_where_they_should_be() -> None:
    tracker = Tracker(min_hits=1, hold=0.3)
    for frame in range(20):
        tracker.update(faces((100 + 8.0 * frame, 100)), frame / 25)
    held = tracker.update(Faces.empty(), 20 / 25)
    assert by_id(held)[1] == pytest.approx((260, 100), abs=6)
    assert by_id(held)[1][0] > 253
    assert held.landmarks is not None
    assert held.landmarks[0, 2] == pytest.approx((260, 104), abs=8)
    assert len(tracker.update(Faces.empty(), 19 / 25 + 0.29)) == 1
    assert len(tracker.update(Faces.empty(), 19 / 25 + 0.31)) == 0


def test_prediction_stands_in_for_detection() -> None:
    """Between detections in every third frame it is nearer to the face than its last box is."""
    tracker = Tracker(every=3, min_hits=1)
    assert tracker.every == 3
    errors, still, last = [], [], (0.0, 0.0)
    for frame in range(60):
        place = (100 + 6.4 * frame, 100 + 3.2 * frame)
        if frame % tracker.every == 0:
            tracker.update(faces(place), frame / 25)
            last = place
        else:
            predicted = tracker.predict(frame / 25)
            assert by_id(predicted).keys() == {1}
            errors.append(np.abs(by_id(predicted)[1] - place).max())
            still.append(np.abs(np.subtract(last, place)).max())
    assert np.mean(errors[6:]) < 0.6 * np.mean(still[6:])


def test_predicting_changes_nothing() -> None:
    plain, asked = Tracker(min_hits=1), Tracker(min_hits=1)
    for frame in range(10):
        detected = faces((100 + 4.0 * frame, 100))
        for ahead in (0.0, 0.01, 5.0):
            asked.predict(frame / 25 + ahead)
        first, second = (t.update(detected, frame / 25) for t in (plain, asked))
        assert np.array_equal(first.boxes, second.boxes)
        assert np.array_equal(first.landmarks, second.landmarks)


def test_landmarks_at_rest_are_calm_and_moving_ones_do_not_lag() -> None:
    rng = np.random.default_rng(0)
    tracker = Tracker(min_hits=1)
    raw, smooth = [], []
    for frame in range(100):
        detected = faces((100, 100))
        assert detected.landmarks is not None
        detected.landmarks += rng.normal(0, 0.5, (1, 5, 2)).astype(np.float32)
        raw.append(detected.landmarks[0])
        smooth.append(tracker.update(detected, frame / 25).landmarks[0])
    assert np.std(smooth[20:], axis=0).mean() < 0.6 * np.std(raw[20:], axis=0).mean()

    tracker = Tracker(min_hits=1)
    for frame in range(100):
        detected = faces((100 + 5.0 * frame, 100))
        found = tracker.update(detected, frame / 25)
    assert found.landmarks == pytest.approx(detected.landmarks, abs=4)


def test_a_clock_that_starts_again_starts_anew() -> None:
    tracker = Tracker(min_hits=1)
    tracker.update(faces((50, 50)), 100.0)
    assert by_id(tracker.update(faces((50, 50)), 0.0)).keys() == {2}
    assert by_id(tracker.update(faces((50, 50)), 0.04)).keys() == {2}


def test_the_same_calls_give_the_same_tracks() -> None:
    rng = np.random.default_rng(1)
    frames = [faces(*rng.uniform(0, 600, (8, 2)).tolist()) for _ in range(40)]

    def run() -> list[Faces]:
        tracker = Tracker()
        return [tracker.update(found, index / 25) for index, found in enumerate(frames)]

    for first, second in zip(run(), run(), strict=True):
        assert np.array_equal(first.track_ids, second.track_ids)
        assert np.array_equal(first.boxes, second.boxes)


def test_memory_is_bounded_where_the_clock_stands_still() -> None:
    rng = np.random.default_rng(2)
    tracker = Tracker(min_hits=1)
    for _ in range(60):
        tracker.update(faces(*rng.uniform(0, 1e6, (50, 2)).tolist()), 0.0)
    assert len(tracker.last_seen()) == MAX_TRACKS


def test_last_seen() -> None:
    tracker = Tracker(min_hits=1)
    tracker.update(faces((50, 50), (300, 300)), 1.0)
    tracker.update(faces((50, 50)), 1.5)
    assert tracker.last_seen() == {1: 1.5, 2: 1.0}


def test_faces_without_landmarks() -> None:
    tracker = Tracker(min_hits=1)
    boxes = Faces([[0, 0, 40, 40]], [0.9])
    for seconds in (0.0, 0.1):
        assert tracker.update(boxes, seconds).landmarks is None
    assert tracker.predict(0.2).landmarks is None


def test_no_face_at_all() -> None:
    tracker = Tracker()
    for found in (tracker.predict(0.0), tracker.update(Faces.empty(), 0.0), tracker.predict(1.0)):
        assert len(found) == 0
        assert found.track_ids is not None
        assert found.track_ids.shape == (0,)


def test_faces_without_area() -> None:
    tracker = Tracker(min_hits=1)
    for frame in range(5):
        found = tracker.update(Faces([[5, 5, 5, 5], [0, 0, 9, 0]], [0.9, 0.8]), frame / 25)
        assert len(found) == 2
    assert np.isfinite(tracker.predict(10.0).boxes).all()


@pytest.mark.parametrize("timestamp", [float("nan"), float("inf"), "1", None])
def test_wrong_timestamps(timestamp: object) -> None:
    with pytest.raises(InvalidOptionError, match="timestamp"):
        Tracker().update(Faces.empty(), timestamp)
    with pytest.raises(InvalidOptionError, match="timestamp"):
        Tracker().predict(timestamp)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("every", 0),
        ("every", 1.5),
        ("new_score", 1.1),
        ("new_score", float("nan")),
        ("min_hits", 0),
        ("hold", -1),
        ("hold", 2.0),
        ("max_lost", -0.1),
        ("max_lost", "1"),
    ],
)
def test_wrong_options(option: str, value: object) -> None:
    with pytest.raises(InvalidOptionError, match=option):
        Tracker(**{option: value})


@pytest.mark.parametrize("every", [1, 5])
def test_a_crowd(every: int) -> None:
    """Thirty faces of 40 pixels wander through 1280 x 720; a tenth is missed in each frame."""
    rng = np.random.default_rng(3)
    place, speed = rng.uniform((0, 0), (1280, 720), (30, 2)), rng.normal(0, 20, (30, 2))
    tracker, last, switches, numbers = Tracker(every=every), {}, 0, set()
    for frame in range(300):
        speed += -speed * 0.02 + rng.normal(0, 4, (30, 2))
        place = place + speed / 25
        if frame % every:
            continue
        seen = np.flatnonzero(rng.random(30) > 0.1)
        found = by_id(tracker.update(faces(*place[seen].tolist()), frame / 25))
        for number, centre in found.items():
            person = int(np.argmin(np.abs(place - centre).sum(1)))
            switches += last.setdefault(person, number) != number
            last[person] = number
            numbers.add(number)
    assert switches <= 6
    assert len(numbers) <= 36


def test_each_option_does_something() -> None:
    """So that no default can be changed without a test that notices."""
    rng = np.random.default_rng(4)
    frames = [faces(*rng.normal((100, 100), 12, (1, 2)).tolist()) for _ in range(40)]
    frames[10:20] = [Faces.empty()] * 10

    def reported(**options: float) -> int:
        tracker = Tracker(**options)
        return sum(len(tracker.update(found, i / 25)) for i, found in enumerate(frames))

    counts = [reported(), reported(min_hits=1), reported(hold=0.2), reported(new_score=0.95)]
    assert all(a != b for a, b in itertools.combinations(counts, 2))
