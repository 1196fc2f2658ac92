"""A long run of a stream in mode "latest": memory, threads and files, as a Markdown table.

    python benchmarks/stream.py VIDEO [--minutes 10] [--fps 30] > table.md

The video stands in for a camera: it is decoded again and again, at the rate that is asked for,
as a live source under the watchdog. Half way the camera is unplugged for a moment.
"""

from __future__ import annotations

import argparse
import platform
import sys
import threading
import time
from pathlib import Path

import cv2

from edgeface import Detector
from edgeface.bench.process import Sample, sample, slope
from edgeface.capture import Capture
from edgeface.errors import StreamError
from edgeface.hardware import host
from edgeface.stream import Stream, StreamStats
from edgeface.video import Frame, Video

WARM_UP = 60.0
SAMPLES = 60


class LoopedCamera:
    """A video that goes round and round in real time, until it is unplugged."""

    live = True

    def __init__(self, path: Path, fps: float, unplugged: float) -> None:
        self._path, self._step, self._unplugged = path, 1 / fps, unplugged
        self._video = Video(path)
        self._due = time.monotonic()
        self._fresh = self._due < unplugged

    def read(self) -> Frame | None:
        """Return the next frame when its time has come."""
        if self._fresh and time.monotonic() > self._unplugged:
            return None
        frame = self._video.read()
        if frame is None:
            self._video.close()
            self._video = Video(self._path)
            frame = self._video.read()
        self._due += self._step
        time.sleep(max(0.0, self._due - time.monotonic()))
        return None if frame is None else Frame(frame.image, None)

    def close(self) -> None:
        """Close the video."""
        self._video.close()


def run(stream: Stream, seconds: float) -> list[Sample]:
    """Take frames for that long; sample evenly, from the first frame on."""
    samples: list[Sample] = []
    began = None
    for result in stream:
        began = result.captured if began is None else began
        now = time.monotonic() - began
        if now >= len(samples) * seconds / SAMPLES:
            samples.append(sample(now))
        if now >= seconds:
            break
    return samples


def table(stats: StreamStats, samples: list[Sample], fps: float, offered: int) -> str:
    """The Markdown table."""
    first, last = samples[0], samples[-1]
    settled = [each for each in samples if each.seconds >= min(WARM_UP, last.seconds / 2)]
    rows = {
        "length": f"{last.seconds / 60:.1f} min at {fps:g} fps",
        "frames offered, handed out, dropped": f"{offered}, {stats.frames}, {stats.dropped}",
        "frame rate": f"{stats.frames / last.seconds:.1f} fps",
        "latency, median and p95": f"{stats.latency_p50_ms:.1f} ms, {stats.latency_p95_ms:.1f} ms",
        "reconnects": str(stats.reconnects),
        "RSS at the start, after warm-up, highest, at the end": (
            f"{first.rss_mib:.1f}, {settled[0].rss_mib:.1f}, "
            f"{max(each.rss_mib for each in samples):.1f}, {last.rss_mib:.1f} MiB"
        ),
        "RSS slope after warm-up": f"{slope(settled):+.2f} MiB/h",
        "threads, start and end": f"{first.threads}, {last.threads}",
        "open files, start and end": f"{first.files}, {last.files}",
        "Python threads after close": str(threading.active_count()),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description="A long run of a stream, as a Markdown table.")
    parser.add_argument("video", type=Path, help="what the camera sees")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--fps", type=float, default=30.0, help="of the camera")
    parser.add_argument("--model", default="retinaface_mobilenet025", help="name or bundle folder")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--input-size", type=int, default=320, help="long side in pixels")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    seconds = args.minutes * 60
    unplugged = time.monotonic() + seconds / 2

    def plug_in() -> LoopedCamera:
        if unplugged < time.monotonic() < unplugged + 3:
            raise StreamError("unplugged")
        return LoopedCamera(args.video, args.fps, unplugged)

    with Detector(
        args.backend, model=args.model, input_size=args.input_size, threads=1
    ) as detector:
        capture = Capture(plug_in, "latest")
        with Stream(detector, capture) as stream:
            samples = run(stream, seconds)
            offered = stream.stats.frames + stream.stats.dropped
        print(
            f"{host().cpu}, Python {platform.python_version()}, OpenCV {cv2.__version__}, "
            f"{detector.explain().backend}, one thread, {args.video.name}, long side "
            f"{args.input_size}.\n"
        )
        print(table(stream.stats, samples, args.fps, offered))
    return 0


if __name__ == "__main__":
    sys.exit(main())
