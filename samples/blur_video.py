"""A copy of a video in which the faces cannot be recognised.

A face that is missed in some frames stays blurred. The sound is left out: edgeface blur keeps it.

Run: python samples/blur_video.py clip.mp4 -o blurred.mp4
     python samples/blur_video.py clip.mp4 -o blurred.mp4 --kind solid --margin 0.4
"""

import argparse
import sys
from pathlib import Path

import cv2

from edgeface import Detector
from edgeface.privacy import KINDS, blur_video
from edgeface.video import DEFAULT_FPS, Video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("blurred.mp4"))
    parser.add_argument("--kind", choices=KINDS, default="gaussian")
    parser.add_argument("--margin", type=float, default=0.2, help="wider boxes, in box sizes")
    args = parser.parse_args()

    # A blurred lamp is a smaller mistake than a face that shows: take weak detections as well.
    with Detector(score_threshold=0.3) as detector, Video(args.video) as video:
        fps = video.fps or DEFAULT_FPS
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(args.output), codec, fps, (video.width, video.height))
        if not writer.isOpened():
            sys.exit(f"cannot write {args.output}")
        frames = 0
        for image in blur_video(video, detector, fps=fps, kind=args.kind, margin=args.margin):
            writer.write(image)
            frames += 1
        writer.release()
    print(f"{frames} frames: {args.output}")


if __name__ == "__main__":
    main()
