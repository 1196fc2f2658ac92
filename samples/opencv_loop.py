"""Face detection inside a capture loop that you already have: OpenCV or GStreamer.

A source with a "!" is a GStreamer pipeline. It must end in an appsink of BGR frames, and OpenCV
must be built with GStreamer: Debian's and JetPack's python3-opencv are, the wheels of pip are not.

Run: python samples/opencv_loop.py clip.mp4
     python samples/opencv_loop.py 0
     python samples/opencv_loop.py "v4l2src ! videoconvert ! video/x-raw,format=BGR ! appsink"
"""

import argparse
import statistics
import sys
import time

import cv2

from edgeface import Detector


def open_source(source: str) -> cv2.VideoCapture:
    """Open a camera index, a GStreamer pipeline, a file or a URL."""
    if source.isdecimal():
        capture = cv2.VideoCapture(int(source))
    elif "!" in source:
        capture = cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
    else:
        capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        hint = " (this OpenCV has no GStreamer)" if "!" in source and not has_gstreamer() else ""
        sys.exit(f"cannot open {source}{hint}")
    return capture


def has_gstreamer() -> bool:
    return cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", help="camera index, GStreamer pipeline, file or URL")
    parser.add_argument("--frames", type=int, help="stop after so many (default: all)")
    parser.add_argument("--out", help="the last frame, drawn, as a picture")
    args = parser.parse_args()

    capture = open_source(args.source)
    detector = Detector()
    milliseconds: list[float] = []
    frame = faces = None
    while args.frames is None or len(milliseconds) < args.frames:
        delivered, image = capture.read()
        if not delivered:
            break
        start = time.perf_counter()
        faces, frame = detector(image), image
        milliseconds.append((time.perf_counter() - start) * 1e3)
        print(f"{len(milliseconds)}: {len(faces)} faces, {milliseconds[-1]:.1f} ms")
    capture.release()
    detector.close()

    if frame is None:
        sys.exit(f"{args.source} gave no frame")
    if args.out:
        cv2.imwrite(args.out, faces.draw(frame))
    print(f"{len(milliseconds)} frames, median {statistics.median(milliseconds):.1f} ms")


if __name__ == "__main__":
    main()
