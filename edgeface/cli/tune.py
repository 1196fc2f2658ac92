"""``edgeface tune``: measure which backend is the fastest here, and let "auto" use it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from edgeface import tuned
from edgeface.bundle import load_bundle
from edgeface.cli.options import input_size
from edgeface.cli.progress import track
from edgeface.tuned import Measurement

EPILOG = """\
examples:
  edgeface tune                                   a minute or two on a desktop
  edgeface tune --image lobby.jpg door.jpg        on pictures like yours
  edgeface tune --input-size 320 640 --threads 1  sizes and threads to try
  edgeface tune --forget                          back to what is usual

Every backend that runs here computes in a process of its own, and they take turns. One that
crashes, hangs, or finds other faces than the reference is never chosen. The result is kept for this
model and machine until a backend, Python or edgeface changes: Detector("auto") follows it, and
'edgeface doctor' shows it. Nothing is kept of a run that was interrupted.

exit codes:
  0 success · 1 an error, or nothing may be chosen · 2 wrong usage · 130 interrupted
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "tune",
        help="measure which backend, precision and threads are the fastest here",
        description='Measure what runs here and keep the fastest for Detector("auto").',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        default="retinaface_mobilenet025",
        metavar="NAME|DIR",
        help="a shipped model, or the folder of a bundle (default: %(default)s)",
    )
    parser.add_argument(
        "--image",
        nargs="+",
        metavar="FILE",
        help="pictures with faces, like yours (default: drawn faces)",
    )
    parser.add_argument(
        "--input-size",
        nargs="+",
        type=input_size,
        default=[640],
        metavar="640|WxH|none",
        help="sizes to try: long sides, exact sizes, or the picture's own size (default: 640)",
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=int,
        metavar="N",
        help="numbers of worker threads to try (default: 1, 2, 4, 8 up to the big cores)",
    )
    parser.add_argument(
        "--rounds", type=int, default=20, metavar="N", help="turns of each (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument(
        "--forget", action="store_true", help="remove what was measured of the model here"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, keep and print; return 1 where nothing may be chosen."""
    if args.forget:
        tuned.forget(load_bundle(args.model))
        return 0
    from edgeface.tuning import tune

    tuning = tune(
        args.model,
        images=args.image,
        input_sizes=args.input_size,
        threads=args.threads,
        rounds=args.rounds,
        progress=lambda steps, phase: track(steps, phase, unit=_UNITS[phase]),
    )
    best = [tuning.best(size) for size in dict.fromkeys(args.input_size)]
    if args.json:
        print(
            json.dumps(asdict(tuning) | {"auto": [one and asdict(one) for one in best]}, indent=2)
        )
    else:
        print(f"{tuning}\n")
        print("\n".join(map(_winner, best)))
    return 0 if all(best) else 1


_UNITS = {"probe": "backend", "load": "trial", "measure": "round"}


def _winner(best: Measurement | None) -> str:
    if best is None:
        return "nothing may be chosen: 'auto' goes on with what is usual"
    size = tuned.describe_size(best.input_size)
    return f'Detector("auto") takes {best.backend}, {best.name}, at input size {size}: {best}'
