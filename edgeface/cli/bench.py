"""``edgeface bench``: how fast detectors are on this machine, beside each other and others'."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from edgeface.bundle import PRECISIONS, check_precision, write_atomic
from edgeface.cli.files import check_writable
from edgeface.cli.options import input_size
from edgeface.cli.progress import track
from edgeface.errors import InvalidOptionError
from edgeface.runtimes.base import BACKENDS, backend

if TYPE_CHECKING:
    from edgeface.bench.accuracy import Precision
    from edgeface.bench.candidates import Candidate, Ours
    from edgeface.bench.scenes import Image

INTERRUPTED = 130
EPILOG = """\
examples:
  edgeface bench                                   every backend that runs here, int8 and fp32
  edgeface bench --stages --json speed.json --output speed.md
  edgeface bench --against yunet_n.onnx retinaface.onnx --evaluate WIDER --plot speed.png
  edgeface bench --backend openvino --threads 1 2 --size 1280x720
  edgeface bench --growth                          sizes, faces, threads, batches
  edgeface bench --paper                           the terms of RetinaFace's table 5

Candidates take turns in every round, so that ratios hold where other work disturbs the times. The
picture is put into --size; without --image it is scikit-image's astronaut, or drawn faces where
scikit-image is not installed. FILE.onnx is YuNet, or RetinaFace as the PyTorch repositories export
it. WIDER holds WIDER FACE's validation pictures and ground truth.

exit codes:
  0 success · 1 an error · 2 wrong usage · 130 interrupted; what was measured so far is written
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed here: backends, precisions, threads, other detectors",
        description="Measure how fast detectors are on this machine, candidates taking turns.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_candidates(parser)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--growth", action="store_true",
        help="measure instead how cost grows with size, faces, threads and batch",
    )  # fmt: skip
    mode.add_argument(
        "--paper", action="store_true",
        help="measure instead the sizes of RetinaFace's table 5, and show the paper's times",
    )  # fmt: skip
    parser.add_argument("--image", metavar="FILE", type=Path, help="the picture to look at")
    parser.add_argument(
        "--size", metavar="WxH", type=_size, default=(640, 480),
        help="of the picture, which is put into it (default: 640x480)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", metavar="N", type=int, default=100, help="timed calls (default: %(default)s)"
    )
    parser.add_argument("--stages", action="store_true", help="show what each stage takes")
    parser.add_argument(
        "--no-starts", dest="starts", action="store_false",
        help="leave out start times and memory, which take seconds for each candidate",
    )  # fmt: skip
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--evaluate", metavar="WIDER", type=Path,
        help="measure average precision as well, which takes minutes (default: as the models' "
        "reports say)",
    )  # fmt: skip
    precision.add_argument(
        "--accuracy", metavar="FILE", type=Path,
        help="take average precision from an earlier --json FILE",
    )  # fmt: skip
    parser.add_argument(
        "--limit", metavar="N", type=int, help="evaluate on N pictures (default: all)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure")
    parser.add_argument(
        "-o", "--output", metavar="FILE.md", type=Path, help="write the tables as Markdown"
    )
    parser.add_argument(
        "--plot", metavar="FILE.png", type=Path,
        help="draw average precision against milliseconds; with --growth, the curves "
        "(extra 'bench')",
    )  # fmt: skip


def _add_candidates(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("candidates")
    group.add_argument(
        "--model", metavar="NAME|DIR", nargs="+", default=["retinaface_mobilenet025"],
        help="shipped models, or folders of bundles (default: retinaface_mobilenet025)",
    )  # fmt: skip
    group.add_argument(
        "--backend", metavar="NAME", nargs="+", default=[],
        help=f"auto, {', '.join(BACKENDS)} (default: auto, and all that run here)",
    )  # fmt: skip
    group.add_argument(
        "--precision", metavar="NAME", nargs="+", default=["auto", "fp32"],
        help=f"auto, {', '.join(PRECISIONS)} (default: auto fp32)",
    )  # fmt: skip
    group.add_argument(
        "--threads", metavar="N", nargs="+", type=int, default=[1],
        help="worker threads of every candidate (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--input-size", metavar="640|WxH|none", type=input_size, default=640,
        help="long side, exact size, or the picture's own size (default: 640)",
    )  # fmt: skip
    group.add_argument(
        "--against", metavar="FILE.onnx", type=Path, nargs="+", action="extend", default=[],
        help="other detectors, with which edgeface's are compared",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables and write the files."""
    from edgeface.bench.candidates import find_ours
    from edgeface.bench.scenes import load_picture
    from edgeface.bench.settings import Settings

    check(args)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    image, words = load_picture(args.image)
    ours, left_out = find_ours(
        args.model, args.backend, args.precision, args.threads, Settings(args.input_size)
    )
    told = ", ".join(left_out)
    notes = [f"Left out, as `edgeface doctor` explains: {told}."] if left_out else []
    if args.growth:
        return grow(args, ours, image, words)
    if args.paper:
        return paper(args, ours, image, words)
    return compare(args, ours, image, words, notes)


def compare(
    args: argparse.Namespace, ours: Sequence[Ours], image: Image, words: str, notes: list[str]
) -> int:
    """The table of candidates and peers."""
    from edgeface.bench import comparison, markdown, plot
    from edgeface.bench.candidates import find_peers
    from edgeface.bench.scenes import fit
    from edgeface.bench.settings import Settings
    from edgeface.evaluation.wider import load_wider

    candidates: list[Candidate] = [*ours, *find_peers(args.against, args.threads)]
    width, height = args.size
    result = comparison.compare(
        candidates,
        fit(image, args.size),
        f"{words} at {width} x {height}",
        Settings(args.input_size),
        rounds=args.rounds,
        starts=args.starts,
        known=_known(args.accuracy),
        dataset=load_wider(args.evaluate, args.limit) if args.evaluate else (),
        track=track,
    )
    result.notes += notes
    drawing = plot.plot_comparison(result) if args.plot and result.precisions else b""
    text = markdown.to_markdown(result, stages=args.stages, plot=_shown(args.plot, drawing))
    finish(args, text, result.to_dict(), drawing)
    if args.plot and not drawing and not result.interrupted:
        plot.plot_comparison(result)
    return INTERRUPTED if result.interrupted else 0


def grow(args: argparse.Namespace, ours: Sequence[Ours], image: Image, words: str) -> int:
    """The curves of growth."""
    from edgeface.bench import growth, growth_markdown, plot

    result = growth.grow(ours, image, rounds=args.rounds, track=_show)
    drawing = plot.plot_growth(result) if args.plot else b""
    text = growth_markdown.to_markdown(result, words, plot=_shown(args.plot, drawing))
    finish(args, text, result.to_dict(), drawing)
    return INTERRUPTED if result.interrupted else 0


def paper(args: argparse.Namespace, ours: Sequence[Ours], image: Image, words: str) -> int:
    """The paper's own terms."""
    from edgeface.bench.paper import headline

    result = headline(ours, image, rounds=args.rounds, track=_show)
    finish(args, result.to_markdown(words), result.to_dict())
    return 0


def check(args: argparse.Namespace) -> None:
    """Refuse, before any work, what could not be done or written after it.

    Raises:
        InvalidOptionError: an option has a value that it does not accept.
        MissingDependencyError: --plot without matplotlib.
    """
    from edgeface.bench.plot import figure_class
    from edgeface.bench.timing import check_rounds

    check_rounds(args.rounds)
    for name in args.backend:
        if name != "auto":
            backend(name)
    for name in args.precision:
        check_precision(name)
    for option in ("json", "output", "plot"):
        if getattr(args, option) is not None:
            check_writable(f"--{option}", getattr(args, option))
    if args.plot is not None:
        if args.paper:
            raise InvalidOptionError(
                "expected --plot with the comparison or --growth, which it draws, got --paper; "
                "take --output or --json"
            )
        figure_class()
    if (args.growth or args.paper) and (args.against or args.evaluate or args.accuracy):
        raise InvalidOptionError(
            "expected --growth and --paper without --against, --evaluate and --accuracy, which "
            "belong to the comparison; run it apart"
        )


def finish(
    args: argparse.Namespace, text: str, record: Mapping[str, Any], drawing: bytes = b""
) -> None:
    """Write the files that were asked for, and print the tables."""
    if drawing:
        write_atomic(args.plot, drawing)
    if args.json is not None:
        write_atomic(args.json, (json.dumps(record, indent=1) + "\n").encode())
    if args.output is not None:
        write_atomic(args.output, text.encode())
    print(text, end="")


def _known(path: Path | None) -> dict[str, Precision]:
    from edgeface.bench.accuracy import recalled

    return {} if path is None else recalled(path)


def _shown(plot: Path | None, drawing: bytes) -> str:
    return plot.name if plot and drawing else ""


def _show(description: str, items: Sequence[Any]) -> Iterable[Any]:
    return track(items, description)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text.lower())
    if not match:
        raise argparse.ArgumentTypeError(f"expected a size (640x480), got {text!r}")
    return int(match[1]), int(match[2])
