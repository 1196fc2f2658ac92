"""A camera with its faces as MJPEG, for a browser, VLC or Home Assistant; standard library only.

A recording starts again at its end. For a page with controls and a REST service: edgeface serve.

Run: python samples/mjpeg_server.py clip.mp4 --port 8080
"""

import argparse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread

import cv2

from edgeface import Detector

PAGE = b"<!doctype html><title>edgeface</title><img src=/stream.mjpg style='max-width:100%'>"


class Newest:
    """The newest JPEG; any number of viewers wait for the next one."""

    def __init__(self) -> None:
        self._condition, self._number, self._jpeg = Condition(), 0, b""

    def put(self, jpeg: bytes) -> None:
        with self._condition:
            self._number, self._jpeg = self._number + 1, jpeg
            self._condition.notify_all()

    def after(self, number: int) -> tuple[int, bytes]:
        with self._condition:
            self._condition.wait_for(lambda: self._number > number)
            return self._number, self._jpeg


newest = Newest()


class Handler(BaseHTTPRequestHandler):
    """Gives the page and the stream."""

    def do_GET(self) -> None:
        is_stream = self.path == "/stream.mjpg"
        kind = "multipart/x-mixed-replace; boundary=frame" if is_stream else "text/html"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        if not is_stream:
            self.wfile.write(PAGE)
            return
        number = 0
        try:
            while True:
                number, jpeg = newest.after(number)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
        except ConnectionError:
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", nargs="?", default="0", help="camera, file or URL (default: 0)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: every network")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()

    source = int(args.source) if args.source.isdecimal() else args.source
    server = ThreadingHTTPServer((args.host, args.port), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://{args.host}:{server.server_port}/", flush=True)
    with Detector() as detector:
        while True:
            with detector.stream(source, track=True) as stream:
                for result in stream:
                    newest.put(cv2.imencode(".jpg", result.faces.draw(result.frame))[1].tobytes())


if __name__ == "__main__":
    main()
