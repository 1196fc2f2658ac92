from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeface.errors import InvalidImageError, StreamError
from edgeface.video import Video, file_path, is_video


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six frames, each of one grey: 0, 40, 80, ..."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (64, 48))
    for value in range(0, 240, 40):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    return path


def test_reads_every_frame_in_order(clip: Path) -> None:
    with Video(clip) as video:
        assert (video.width, video.height, video.fps, video.frame_count) == (64, 48, 12.5, 6)
        frames = [next(iter(video)), *video]
        assert list(video) == []
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 6
    assert [frame.mean() for frame in frames] == pytest.approx(range(0, 240, 40), abs=4)


def test_frames_are_not_overwritten_by_later_ones(clip: Path) -> None:
    with Video(str(clip)) as video:
        frames = iter(video)
        first = next(frames)
        kept = first.copy()
        next(frames)
    assert np.array_equal(first, kept)


def test_tells_videos_from_pictures(clip: Path, tmp_path: Path) -> None:
    picture = tmp_path / "one.png"
    cv2.imwrite(str(picture), np.zeros((48, 64, 3), np.uint8))
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    assert is_video(clip)
    assert not is_video(picture)
    assert not is_video(text)


def test_timestamps_are_those_of_the_frames(clip: Path) -> None:
    with Video(clip) as video:
        assert not video.live
        timestamps = [frame.timestamp for frame in iter(video.read, None)]
    assert timestamps == pytest.approx(np.arange(6) / 12.5)


def test_timestamps_of_variable_frame_rate(data: Path) -> None:
    with Video(data / "video" / "classroom.gif") as video:
        timestamps = [frame.timestamp for frame in iter(video.read, None)]
    assert len(timestamps) == 45
    assert timestamps[:4] == pytest.approx([0, 0.07, 0.13, 0.2])


def test_timestamps_grow_where_the_file_has_none(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Timeless:
        reads = 0

        def __init__(self, path: str) -> None:
            pass

        def get(self, what: int) -> float:
            return {cv2.CAP_PROP_FPS: 10, cv2.CAP_PROP_FRAME_COUNT: 4}.get(what, 0)

        def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
            self.reads += 1
            if self.reads == 2:
                raise cv2.error("damaged")
            return self.reads <= 4, np.zeros((48, 64, 3), np.uint8)

    monkeypatch.setattr(cv2, "VideoCapture", Timeless)
    timestamps = [frame.timestamp for frame in iter(Video(clip).read, None)]
    assert timestamps == pytest.approx([0, 0.1, 0.2])


def test_damage_in_the_middle_leaves_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20, (64, 48))
    for value in range(0, 240, 6):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    content = bytearray(path.read_bytes())
    middle = slice(len(content) * 4 // 10, len(content) // 2)
    content[middle] = bytes(len(content[middle]))
    path.write_bytes(content)
    with Video(path) as video:
        frames = list(iter(video.read, None))
    timestamps = [frame.timestamp for frame in frames]
    assert 20 <= len(frames) < 40
    assert timestamps == sorted(set(timestamps))
    assert timestamps[-1] == pytest.approx(39 * 0.05)
    assert frames[-1].image.mean() == pytest.approx(234, abs=4)


def test_a_file_that_is_cut_off_ends_early(clip: Path) -> None:
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) * 9 // 10])
    with Video(clip) as video:
        assert 1 <= len(list(video)) < 6


def test_an_empty_file(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(InvalidImageError, match=r"got .*empty\.mp4 of 0 bytes"):
        Video(empty)


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(StreamError, match="open the camera 97, but it cannot be opened"):
        Video(97)


def test_which_sources_are_files(tmp_path: Path) -> None:
    assert file_path("clip.mp4") == Path("clip.mp4")
    assert file_path(tmp_path) == tmp_path
    for source in (0, "rtsp://camera/stream", "HTTP://camera:8080/video.mjpg", "/dev/null"):
        assert file_path(source) is None


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match=r"missing\.mp4 does not exist"):
        Video(tmp_path / "missing.mp4")
    with pytest.raises(InvalidImageError, match="got the folder"):
        is_video(tmp_path)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(InvalidImageError, match=r"can decode, got .*text\.mp4"):
        Video(text)


def test_the_sample_videos(data: Path) -> None:
    for path in [*data.glob("video/*.mp4"), *data.glob("video/*.gif")]:
        assert is_video(path)
        with Video(path) as video:
            assert next(iter(video)).shape == (video.height, video.width, 3)
