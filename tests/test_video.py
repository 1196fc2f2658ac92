from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface.errors import InvalidImageError
from edgeface.video import Video, is_video


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
