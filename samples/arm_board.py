"""A board's camera: tracked faces as a line of JSON per frame, or as a live picture (MJPEG).

For a small machine: 320 pixels, every other frame; now and then the temperature, on stderr.

Run: python samples/arm_board.py clip.mp4 --frames 100
     python samples/arm_board.py 0 --preview 8000 --host 0.0.0.0
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Condition, Thread

import cv2

from edgeface import Detector
from edgeface.stream import StreamResult
from edgeface.thermal import read_thermal
from edgeface.tracking import Tracker


class Preview(BaseHTTPRequestHandler):
    """Sends every viewer the newest picture as soon as it is there."""

    newest, arrived = b"", Condition()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with suppress(ConnectionError):
            while True:
                with self.arrived:
                    self.arrived.wait()
                    jpeg = self.newest
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")


def results(detector: Detector, args: argparse.Namespace) -> Iterator[StreamResult]:
    source = int(args.source) if args.source.isdecimal() else args.source
    mode = "every" if args.preview is None and Path(args.source).is_file() else "latest"
    while True:
        with detector.stream(source, mode, track=Tracker(every=args.every)) as stream:
            for result in stream:
                yield result
                if result.index % 1000 == 0:
                    print(read_thermal(), stream.stats, file=sys.stderr)
        if mode == "every":
            break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", nargs="?", default="0", help="camera, file or URL (default: 0)")
    parser.add_argument("--preview", type=int, metavar="PORT", help="serve pictures, print no JSON")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: every network")
    parser.add_argument("--every", type=int, default=2, help="detect on every Nth frame")
    parser.add_argument("--frames", type=int, help="end after that many")
    args = parser.parse_args()
    if args.preview is not None:
        server = ThreadingHTTPServer((args.host, args.preview), Preview)
        Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://{args.host}:{server.server_port}/", flush=True)
    for result in islice(results(Detector(input_size=320), args), args.frames):
        if args.preview is None:
            print(json.dumps({"time": result.timestamp, **result.faces.to_dict()}), flush=True)
            continue
        with Preview.arrived:
            Preview.newest = cv2.imencode(".jpg", result.faces.draw(result.frame))[1].tobytes()
            Preview.arrived.notify_all()


if __name__ == "__main__":
    main()
