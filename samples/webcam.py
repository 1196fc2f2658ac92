"""A live view of the camera with faces, ids, frame rate and latency; q or Esc ends it.

Where there is no window to open, it prints a line a second instead.

Run: python samples/webcam.py
     python samples/webcam.py rtsp://camera/stream
     python samples/webcam.py clip.mp4 --headless
"""

import argparse
import os
import re
import sys

import cv2
import numpy as np

from edgeface import Detector

NO_WINDOW = """\
no window: this OpenCV was built without one. For a window:
  pip uninstall opencv-python-headless && pip install opencv-python"""
TITLE = "edgeface"


def why_no_window() -> str | None:
    """Say why no window can be opened, or return None; trying would end the process."""
    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        return NO_WINDOW
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        return "no window: no display here (DISPLAY and WAYLAND_DISPLAY are unset)"
    return None


def show(image: np.ndarray, text: str) -> bool:
    """Show a frame; return False where the user has had enough."""
    cv2.rectangle(image, (0, 0), (image.shape[1], 28), (0, 0, 0), cv2.FILLED)
    cv2.putText(
        image, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA
    )
    cv2.imshow(TITLE, image)
    pressed = cv2.waitKey(1) & 0xFF
    return pressed not in (ord("q"), 27) and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", nargs="?", default="0", help="camera, file or URL (default: 0)")
    parser.add_argument("--input-size", type=int, default=640)
    parser.add_argument("--headless", action="store_true", help="print, even where a window opens")
    args = parser.parse_args()

    problem = "headless" if args.headless else why_no_window()
    if problem and not args.headless:
        print(problem, file=sys.stderr)
    source = int(args.source) if args.source.isdecimal() else args.source
    told = 0.0
    with (
        Detector(input_size=args.input_size) as detector,
        detector.stream(source, track=True) as stream,
    ):
        for result in stream:
            rates = f"{stream.stats.fps:.1f} fps, {result.latency_ms:.0f} ms"
            text = f"faces: {len(result.faces)}, {rates}"
            if not problem:
                if not show(result.faces.draw(result.frame), text):
                    break
            elif result.captured - told >= 1:
                told = result.captured
                ids = [] if result.faces.track_ids is None else result.faces.track_ids.tolist()
                print(f"{result.timestamp:7.1f} s: {text}, ids {ids}")
        print(stream.stats)


if __name__ == "__main__":
    main()
