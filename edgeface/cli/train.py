"""``edgeface train``: train a preset on labelled pictures."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.cache import cache_dir
from edgeface.cli.progress import LOG_SECONDS, TERMINAL_SECONDS, track
from edgeface.errors import InvalidOptionError, missing_extra

if TYPE_CHECKING:
    from edgeface.training.dataset import Root
    from edgeface.training.labels import Problem

PROBLEMS_SHOWN = 10
EPILOG = """\
examples:
  edgeface train --data WIDER --output runs/first
  edgeface train --data DATA/wider/train --data DATA/wider/fit --data DATA/negatives=0.15 \\
      --partial DATA/landmarks=0.15 --weights backbone.safetensors --output runs/first
  edgeface train --data WIDER --output runs/first --resume      go on after an interruption
  torchrun --nproc-per-node 4 -m edgeface train --device cuda …  several GPUs

A data folder holds label.txt and images/ (RetinaFace's format), or WIDER FACE's official layout
(WIDER_train/ and wider_face_split/). DIR=2 makes a folder twice as likely as DIR=1.

The output folder gets weights.safetensors (averaged weights), last.pt (to resume from),
recipe.json, log.csv, checkpoints.csv and loss.png. Make a model of it with:
  edgeface export --checkpoint runs/first/weights.safetensors --preset PRESET -o MODEL
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train a detector on labelled pictures",
        description="Train a preset on labelled pictures, resumable at any time.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--preset", default="retinaface_mobilenet025", help="net to train (default: %(default)s)"
    )
    parser.add_argument(
        "--data", metavar="DIR[=WEIGHT]", action="append", default=[],
        help="pictures with every face labelled, or none in them; repeat to mix folders",
    )  # fmt: skip
    parser.add_argument(
        "--partial", metavar="DIR[=WEIGHT]", action="append", default=[],
        help="pictures with some faces labelled: what is not labelled is ignored",
    )  # fmt: skip
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="run's folder")
    parser.add_argument("--resume", action="store_true", help="go on from the output folder")
    parser.add_argument(
        "--weights", metavar="FILE", type=Path,
        help="initial weights of the net or its backbone (.safetensors)",
    )  # fmt: skip
    parser.add_argument(
        "--recipe", metavar="paper|FILE",
        help="the paper's recipe or a JSON file (default: the one behind our weights)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="N", help="stretch the recipe to N steps")
    parser.add_argument("--seed", type=int, metavar="N", help="seed instead of the recipe's")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the net")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes that make samples (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="compile the net with torch")
    parser.add_argument(
        "--cache", metavar="DIR", type=Path,
        help="folder of decoded pictures (default: edgeface's cache)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    from edgeface.nets import build
    from edgeface.training.device import is_first_process, prepare
    from edgeface.training.loop import Settings, train
    from edgeface.training.recipes import choose_recipe, scale_steps
    from edgeface.training.validation import held_out_figures, held_out_pictures

    recipe = choose_recipe(args.preset, args.recipe)
    if args.steps is not None:
        recipe = scale_steps(recipe, args.steps)
    if args.seed is not None:
        recipe = replace(recipe, seed=args.seed)
    device = prepare(args.device, args.threads, recipe.seed)
    net = build(args.preset)
    settings = Settings(args.output, args.resume, args.weights, device, args.workers, args.compile)
    if not args.data and not args.partial:
        raise InvalidOptionError("expected pictures to train on, got none; name them with --data")
    cache = args.cache or (cache_dir() or args.output) / "pictures"
    roots = [_root(text, cache, partial=False) for text in args.data]
    roots += [_root(text, cache, partial=True) for text in args.partial]
    pictures = held_out_pictures(roots, recipe.held_out)

    with _progress_bar(recipe.steps, shown=is_first_process()) as bar:

        def show(done: int, text: str) -> None:
            bar.set_postfix_str(text, refresh=False)
            bar.update(done - bar.n)

        train(
            net,
            roots,
            recipe,
            settings,
            on_checkpoint=lambda averaged, _step: held_out_figures(averaged, pictures),
            progress=show,
        )
    if is_first_process():
        weights = args.output / "weights.safetensors"
        print(f"trained {args.preset} for {recipe.steps} steps: {weights}")
    return 0


def _progress_bar(steps: int, *, shown: bool) -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise missing_extra("tqdm", "train") from error
    interval = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS
    return tqdm(
        total=steps, unit="step", dynamic_ncols=True, mininterval=interval, disable=not shown
    )


def _root(text: str, cache: Path, *, partial: bool) -> Root:
    from edgeface.training.cache import build_cache
    from edgeface.training.dataset import Root
    from edgeface.training.labels import read_labels

    folder, _, weight = text.partition("=")
    try:
        share = float(weight or 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < float("inf"):
        raise InvalidOptionError(f"expected DIR or DIR=WEIGHT with a weight >= 0, got {text!r}")
    labels = read_labels(Path(folder))
    pictures = build_cache(
        labels.annotations, cache, lambda items: track(items, f"decode {folder}", unit="picture")
    )
    _report(folder, labels.problems + pictures.problems)
    return Root(pictures, share, partial)


def _report(folder: str, problems: list[Problem]) -> None:
    for problem in problems[:PROBLEMS_SHOWN]:
        print(f"edgeface: warning: skipped {problem}", file=sys.stderr)
    if problems:
        print(f"edgeface: warning: {folder}: {len(problems)} labels skipped", file=sys.stderr)
