"""Several cameras on one detector: a line of JSON whenever the number of faces at one changes.

Frame rates, drops and what went wrong come on stderr, every few seconds and at the end.

Run: python samples/several_cameras.py door=0 yard=rtsp://camera/stream
     python samples/several_cameras.py one=clip.mp4 two=clip.mp4 --input-size 320
"""

import argparse
import json
import sys
import time
from contextlib import suppress

from edgeface import Detector
from edgeface.cameras import Cameras

EVERY_SECONDS = 5.0


def source(text: str) -> tuple[str, int | str]:
    """Read NAME=SOURCE; digits are a camera's index."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=SOURCE, got {text!r}")
    return name, int(value) if value.isdecimal() else value


def tell(cameras: Cameras) -> None:
    """Print how each camera runs."""
    for name, stats in cameras.stats.items():
        print(f"{name}: {cameras.errors.get(name, stats)}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sources", nargs="+", type=source, metavar="NAME=SOURCE")
    parser.add_argument("--input-size", type=int, default=640)
    args = parser.parse_args()

    seen: dict[str, int] = {}
    told = time.monotonic()
    with (
        Detector(input_size=args.input_size, mode="throughput") as detector,
        detector.cameras(dict(args.sources)) as cameras,
        suppress(KeyboardInterrupt),
    ):
        for result in cameras:
            if seen.get(result.camera) != len(result.faces):
                seen[result.camera] = len(result.faces)
                event = {
                    "camera": result.camera,
                    "seconds": round(result.timestamp, 3),
                    "faces": len(result.faces),
                    "latency_ms": round(result.latency_ms, 1),
                }
                print(json.dumps(event), flush=True)
            if time.monotonic() - told > EVERY_SECONDS:
                told = time.monotonic()
                tell(cameras)
    tell(cameras)


if __name__ == "__main__":
    main()
