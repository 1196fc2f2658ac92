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
        help="auto, onnxruntime, openvino, tflite or tensorrt (default: auto)",
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
        help="worker threads (default: the cores that it may use, at most 4)",
    )
    return group
