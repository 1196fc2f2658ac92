"""``edgeface rank``: bring the scores of small and large faces to one scale."""

from __future__ import annotations

import argparse
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from edgeface.bundle import write_atomic
from edgeface.cli.files import check_writable
from edgeface.cli.progress import track
from edgeface.errors import InvalidOptionError

if TYPE_CHECKING:
    from edgeface.evaluation.wider import WiderImage
    from edgeface.training.ranking import Candidates, Scaling

EPILOG = """\
example:
  edgeface rank --checkpoint runs/first/weights.safetensors --preset retinaface_mobilenet025 \\
      --data WIDER -o runs/first/ranked.safetensors

A scale and a shift of each anchor's logits, and a slope over the height of its box, chosen for mean
average precision on the pictures of --data and folded into the weights. One shift of all logits
lets as many boxes pass the detector's default threshold as before. The table says what it brings
there, and on the pictures that training held out, which have no part in the choice.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "rank",
        help="bring the scores of small and large faces to one scale, after training",
        description="Bring the scores of small and large faces to one scale, after training.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", type=Path, action="append", required=True,
        help="weights of a training run; repeat for the mean of several runs' weights",
    )  # fmt: skip
    parser.add_argument("--preset", required=True, help="net that the checkpoint belongs to")
    parser.add_argument(
        "--data", metavar="DIR", type=Path, action="append", required=True,
        help="fully labelled training pictures; repeat for more",
    )  # fmt: skip
    parser.add_argument(
        "--limit", metavar="N", type=int, default=150,
        help="pictures of each folder, spread evenly (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--importance", nargs=3, metavar=("EASY", "MEDIUM", "HARD"), type=float,
        help="how much faces of 50, 30 and 10 pixels count in the mean (default: alike)",
    )  # fmt: skip
    parser.add_argument(
        "--held-out", metavar="SHARE", type=float, default=0.03,
        help="share of the pictures that training held out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        required=True,
        help="the weights (.safetensors)",
    )


def run(args: argparse.Namespace) -> int:
    """Choose, print what it brings, and write the weights."""
    from edgeface.nets.weights import load_weights, read_mean_weights, to_safetensors
    from edgeface.training import ranking

    importance = args.importance or ranking.EQUAL
    if not all(0 <= value < inf for value in importance) or not any(importance):
        raise InvalidOptionError(
            f"expected --importance of three numbers from 0 on, not all 0, got {importance}"
        )
    check_writable("--output", args.output)
    net = load_weights(args.preset, read_mean_weights(args.checkpoint))
    ranking.own_heads(net)
    pictures = {"the pictures": _pictures(args, False), "held out": _pictures(args, True)}
    if not pictures["the pictures"]:
        raise InvalidOptionError(
            f"expected pictures to choose on, got none: --held-out {args.held_out} takes them all; "
            "lower it"
        )
    views = {
        name: [
            ranking.find_candidates(net, track(some, name, unit="picture"), long_side)
            for long_side in ranking.LONG_SIDES
        ]
        for name, some in pictures.items()
        if some
    }
    scaling = ranking.fit(views["the pictures"], net.anchors, importance)
    print(_table(views, ranking.Scaling.none(net.anchors), scaling))
    for name, numbers in vars(scaling).items():
        print(f"\n{name} {numbers.round(2).tolist()}", end="")
    print()
    ranking.apply(net, scaling)
    write_atomic(args.output, to_safetensors(net))
    return 0


def _pictures(args: argparse.Namespace, outside: bool) -> list[WiderImage]:
    """Pictures with faces of each folder, of those that training held out or of the others."""
    from edgeface.evaluation.wider import spread
    from edgeface.training.dataset import held_out
    from edgeface.training.labels import read_labels
    from edgeface.training.validation import as_evaluated

    chosen = []
    for folder in args.data:
        some = [
            as_evaluated(one)
            for one in read_labels(folder).annotations
            if len(one.boxes) and held_out(one.image.stem, args.held_out) == outside
        ]
        chosen += some if outside else spread(some, args.limit)
    return chosen


def _table(views: dict[str, list[list[Candidates]]], before: Scaling, after: Scaling) -> str:
    from edgeface.training.ranking import LONG_SIDES, average_precision

    lines = ["| pictures | long side | AP before | after |", "|---|---|---|---|"]
    for name, points in views.items():
        for long_side, found in zip(LONG_SIDES, points, strict=True):
            cells = [_figures(average_precision(found, one)) for one in (before, after)]
            size = long_side or "original"
            lines.append(f"| {name} ({len(found)}) | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(by_subset: dict[str, float]) -> str:
    return "/".join(f"{value:.3f}" for value in by_subset.values())
