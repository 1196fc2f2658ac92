"""Options that commands share."""

from __future__ import annotations

import argparse

from edgeface.bundle import PRECISIONS


def add_detector_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add a group with --model, --backend, --precision and --threads, and return it."""
    group = parser.add_argument_group("detector")
    group.add_argument(
        "--model",
        default="retinaface_mobilenet025",
        metavar="NAME|DIR",
        help="a shipped model, or the folder of a bundle (default: %(default)s)",
    )
    group.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="auto, onnxruntime, openvino, tflite, tensorrt, or a plug-in's (default: auto)",
    )
    group.add_argument(
        "--precision",
        default="auto",
        metavar="NAME",
        help=f"auto, {', '.join(PRECISIONS)} (default: auto)",
    )
    group.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="worker threads (default: the big cores that it may use, at most 4)",
    )
    return group


def add_frame_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the detector's group with --input-size as well, and return it."""
    group = add_detector_options(parser)
    group.add_argument(
        "--input-size",
        type=input_size,
        default=640,
        metavar="640|WxH|none",
        help="long side, exact size, or the picture's own size (default: 640)",
    )
    return group


def input_size(text: str) -> int | tuple[int, int] | None:
    """Read what --input-size says: 640, 640x480 or none."""
    if text.lower() == "none":
        return None
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) == 1:
        return sides[0]
    if len(sides) == 2:
        return sides[0], sides[1]
    raise argparse.ArgumentTypeError(
        f"expected a long side (640), a size (640x480) or none, got {text!r}"
    )
