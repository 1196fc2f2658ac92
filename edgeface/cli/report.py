"""``edgeface report``: every target and precision of a model, measured in one run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edgeface.bundle import Bundle, load_bundle, write_atomic
from edgeface.cli.files import check_writable
from edgeface.cli.gating import add_evaluation_options, show

NAME = "conversion"
EPILOG = """\
examples:
  edgeface report --model retinaface_mobilenet025 --evaluate WIDER --evaluate LABELS
  edgeface report --model models/first --evaluate WIDER --evaluate LABELS --held-out 0.03 -o report

WIDER holds WIDER FACE's validation pictures and ground truth, for average precision; LABELS a
label.txt with five landmarks per face. fp16 files that the model does not hold are made for the
report alone. Writes conversion.md, conversion.json and conversion.png.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="measure every target and precision of a model",
        description="Measure accuracy, drift, speed and size of every target and precision.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", metavar="NAME|DIR", required=True, help="a shipped model or a bundle"
    )
    add_evaluation_options(parser, required=True)
    parser.add_argument(
        "--long-side-only", action="store_true",
        help="leave out the original size (takes about a third of the time)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="folder (default: the bundle's)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, write the report and print it."""
    from edgeface.calibration.accuracy import load_evaluation_data
    from edgeface.calibration.rendering import to_markdown, to_plot
    from edgeface.calibration.report import LONG_SIDE, SIZES, bundle_files, report

    bundle = load_bundle(args.model)
    folder = args.output or bundle.path
    check_writable("--output", folder / f"{NAME}.md")
    data = load_evaluation_data(args.evaluate, held_out_share=args.held_out)
    if args.limit is not None:
        data = data.limit(args.limit)
    sizes = {
        name: side for name, side in SIZES.items() if side == LONG_SIDE or not args.long_side_only
    }
    files = bundle_files(bundle, _half_files(bundle))
    result = report(bundle, files, data, sizes=sizes, track=show)
    text = to_markdown(result, f"{NAME}.png")
    write_atomic(folder / f"{NAME}.png", to_plot(result))
    write_atomic(folder / f"{NAME}.json", (json.dumps(result.to_dict(), indent=2) + "\n").encode())
    write_atomic(folder / f"{NAME}.md", text.encode())
    print(text)
    return 0


def _half_files(bundle: Bundle) -> dict[tuple[str, str], bytes]:
    """Make the fp16 files that a bundle could hold, for the targets whose it does not."""
    from edgeface.calibration.report import FORMATS
    from edgeface.converters.half import compute_half, store_half, store_half_tflite

    converters = {
        "onnx": store_half,
        "openvino": store_half,
        "tflite": store_half_tflite,
        "tensorrt": compute_half,
    }
    made = {}
    for target, convert in converters.items():
        source = bundle.best(FORMATS[target], ("fp32",))
        if source is not None and bundle.best(FORMATS[target], ("fp16",)) is None:
            made[target, "fp16"] = convert(bundle.open(source))
    return made
