"""``edgeface import``: a checkpoint of a PyTorch RetinaFace repository to a bundle."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from edgeface.cli.export import add_output_options, write
from edgeface.cli.progress import track

EPILOG = """\
example:
  edgeface import mobilenet0.25_Final.pth -o models/mine
  edgeface detect photo.jpg --model models/mine --out faces.jpg

CHECKPOINT is a state dict with keys such as body.stage1.0.0.weight, fpn.output1.0.weight and
ClassHead.0.conv1x1.weight: .safetensors, or .pth read without running any code in it. The
checkpoint's licence goes on to hold for the bundle.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "import",
        help="turn a PyTorch RetinaFace checkpoint into a model",
        description="Turn a checkpoint of the well-known PyTorch RetinaFace repositories into a "
        "bundle for Detector(model=...).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="the state dict")
    parser.add_argument(
        "--preset",
        default="retinaface_mobilenet025",
        help="net that it belongs to (default: %(default)s)",
    )
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Import, print the comparison with torch, and name the bundle."""
    from edgeface.converters.bundle import check_output, convert
    from edgeface.converters.community import load_community
    from edgeface.nets.weights import describe_source

    check_output(args.output, args.force)
    net = load_community(args.checkpoint, args.preset)
    conversion = convert(net, progress=partial(track, unit="file"))
    write(args, net, conversion, describe_source(args.checkpoint))
    return 0
