"""``edgeface calibrate``: draw the pictures that quantisation measures ranges on."""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from edgeface.bundle import load_bundle
from edgeface.cli import complain
from edgeface.cli.files import check_writable
from edgeface.cli.options import input_size
from edgeface.cli.progress import track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeface.calibration.draw import Drawn, Predict
    from edgeface.calibration.subset import Preprocess
    from edgeface.faces import Faces

SHOWN = 5
EPILOG = """\
examples:
  edgeface calibrate --data WIDER --model retinaface_mobilenet025 -o calibration.json
  edgeface calibrate --data photos/ --model models/first --images 100 -o calibration.json
  edgeface export --model models/first --precision all --calibration calibration.json -o out

DIR holds label.txt and images/, WIDER FACE's official layout, or pictures alone: in these the model
itself finds the faces. Draw from pictures like those of the application, never from those that
judge the result. The same seed and files give the same set.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "calibrate",
        help="draw the pictures that quantisation calibrates with",
        description="Draw a calibration set, and write the list of its files and their hashes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", metavar="DIR", type=Path, required=True, help="pictures to draw from"
    )
    parser.add_argument(
        "--model", metavar="NAME|DIR", required=True, help="the model that will be quantised"
    )
    add_draw_options(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, default=Path("calibration.json"),
        help="the calibration manifest (default: %(default)s)",
    )  # fmt: skip


def add_draw_options(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
) -> None:
    """Add --images, --seed, --strategy and --frame-size."""
    parser.add_argument(
        "--images", metavar="N", type=int, default=300, help="pictures (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="of the draw (default: %(default)s)"
    )
    parser.add_argument(
        "--strategy", metavar="NAME", default="stratified",
        help="stratified (even over events, face sizes and brightness) or random "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--frame-size", metavar="640|WxH|none", type=input_size, default=640,
        help="input size of the frames, as the detector will run (default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Draw, write the manifest, and print what it holds."""
    from edgeface.calibration.subset import Preprocess, write_manifest

    check_writable("--output", args.output)
    bundle = load_bundle(args.model)
    preprocess = Preprocess(args.frame_size, bundle.anchors.max_stride, bundle.pad_value)
    drawn = draw_set(args, preprocess, face_finder(args.model))
    write_manifest(drawn.calibration, args.output)
    print(summary(drawn))
    print(f"{args.output}: {len(drawn.calibration)} pictures, digest {drawn.calibration.digest}")
    return 0


def draw_set(
    args: argparse.Namespace, preprocess: Preprocess, predict: Predict | None = None
) -> Drawn:
    """Draw as the options say; what cannot be read is told in warnings."""
    from edgeface.calibration.draw import draw

    drawn = draw(
        args.data,
        preprocess,
        predict,
        images=args.images,
        seed=args.seed,
        strategy=args.strategy,
        progress=lambda files: track(files, "reading", unit="picture"),
    )
    for reason in drawn.skipped[:SHOWN]:
        complain("warning", f"left out {reason}")
    if len(drawn.skipped) > SHOWN:
        complain("warning", f"left out {len(drawn.skipped) - SHOWN} more pictures")
    return drawn


def face_finder(model: str) -> Predict:
    """Make a function that finds faces with the model at float32; its first call loads it."""
    from edgeface.detector import Detector

    detectors: list[Detector] = []

    def find(image: NDArray[np.uint8]) -> Faces:
        if not detectors:
            detectors.append(Detector(model=model, precision="fp32"))
        return detectors[0](image)

    return find


def summary(drawn: Drawn) -> str:
    """A table of the drawn pictures by size of faces and brightness."""
    from edgeface.calibration.draw import BRIGHTNESS, NO_FACE, SIZES

    def bounds(edges: tuple[int, ...], unit: str) -> list[str]:
        middle = [f"{low}–{high}" for low, high in pairwise(edges)]
        return [f"< {edges[0]}{unit}", *middle, f"≥ {edges[-1]}{unit}"]

    names: dict[int | None, str] = dict(enumerate(bounds(SIZES, " px")))
    names |= {NO_FACE: "no face", None: "unknown"}
    counts: Counter[tuple[int | None, int]] = Counter()
    for (_, size, brightness), number in drawn.cells.items():
        counts[size, brightness] += number
    shades = range(len(BRIGHTNESS) + 1)
    rows = [
        "| median face | " + " | ".join(f"grey {one}" for one in bounds(BRIGHTNESS, "")) + " |",
        "|---" * (len(shades) + 1) + "|",
    ]
    rows += [
        f"| {name} | " + " | ".join(str(counts[size, shade]) for shade in shades) + " |"
        for size, name in names.items()
        if any(counts[size, shade] for shade in shades)
    ]
    events = len({event for event, _, _ in drawn.cells})
    return "\n".join([*rows, "", f"Events: {events}"])
