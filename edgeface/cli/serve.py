"""``edgeface serve``: a live page and a REST API."""

from __future__ import annotations

import argparse
import ipaddress
import os
from contextlib import suppress

from edgeface.cli import complain
from edgeface.cli.options import add_frame_options
from edgeface.errors import InvalidOptionError, missing_extra
from edgeface.faces import DEFAULT_SCORE_THRESHOLD

EPILOG = """\
examples:
  edgeface serve 0                          the first camera, live
  edgeface serve clip.mp4                   a recording, over and over
  edgeface serve rtsp://camera/stream       a network camera
  edgeface serve                            pictures and the browser's own webcam
  edgeface serve 0 --host 0.0.0.0 --token "$(openssl rand -hex 16)"

  curl --data-binary @photo.jpg http://127.0.0.1:8000/detect

Open the address that it prints. /docs describes the API, /openapi.json is its OpenAPI schema.
Only this machine can connect unless --host says otherwise; then use --token, and a proxy with TLS
where others can listen. Ctrl-C stops.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "serve",
        help="show a camera or video with its faces on a web page, and answer POST /detect",
        description="Serve a live page and a REST API.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", nargs="?", metavar="SOURCE",
        help="camera index, video or URL (default: pictures that the page is given)",
    )  # fmt: skip
    network = parser.add_argument_group("network")
    network.add_argument(
        "--host", default="127.0.0.1", help="where to listen (default: %(default)s)"
    )
    network.add_argument(
        "--port", type=int, default=8000, help="0: any that is free (default: %(default)s)"
    )
    network.add_argument(
        "--token", default=os.environ.get("EDGEFACE_TOKEN"),
        help="what clients must show (default: the variable EDGEFACE_TOKEN, or nothing)",
    )  # fmt: skip
    network.add_argument(
        "--rate", type=float, default=30.0, metavar="N",
        help="requests a second and client (default: %(default)g)",
    )  # fmt: skip
    network.add_argument(
        "--max-megabytes", type=float, default=10.0, metavar="MB",
        help="largest picture that is accepted (default: %(default)g)",
    )  # fmt: skip
    detector = add_frame_options(parser)
    detector.add_argument(
        "--score-threshold", type=float, default=DEFAULT_SCORE_THRESHOLD, metavar="S",
        help="drop faces that score less; the page can change it (default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    try:
        from edgeface.server.app import create_app
        from edgeface.server.limits import Limits
        from edgeface.server.live import Live
        from edgeface.server.run import listen, serve
        from edgeface.server.schemas import LOWEST_THRESHOLD
    except ImportError as error:
        raise missing_extra(error.name or "fastapi", "serve") from error
    from edgeface.detector import Detector

    threshold = args.score_threshold
    if not LOWEST_THRESHOLD <= threshold <= 1:
        raise InvalidOptionError(
            f"expected a score threshold between {LOWEST_THRESHOLD} and 1, got {threshold}"
        )
    limits = Limits(args.token, max_bytes=int(args.max_megabytes * 1e6), rate=args.rate)
    with (
        listen(args.host, args.port) as sock,
        Detector(
            args.backend,
            model=args.model,
            precision=args.precision,
            input_size=args.input_size,
            score_threshold=LOWEST_THRESHOLD,
            threads=args.threads,
        ) as detector,
    ):
        live = None
        if args.source is not None:
            live = Live(detector, source(args.source), threshold)
            live.start()
        app = create_app(detector, live, threshold=threshold, limits=limits, host=args.host)
        told = detector.explain()
        print(f"edgeface: {told.model} on {told.backend}; Ctrl-C stops")
        print(f"edgeface: open {address(args.host, sock.getsockname()[1])}", flush=True)
        if args.token is None and not is_loopback(args.host):
            complain("warning", f"anyone who reaches {args.host} sees this page; use --token")
        with suppress(KeyboardInterrupt):
            serve(app, sock, live.stop if live else lambda: None)
        print("edgeface: stopped")
    return 0


def source(text: str) -> int | str:
    """Read SOURCE: digits are a camera's index."""
    return int(text) if text.isdecimal() else text


def address(host: str, port: int) -> str:
    """Return the page's address, as a browser on this machine takes it."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
