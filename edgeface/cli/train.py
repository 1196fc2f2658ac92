"""``edgeface train``: train a preset on labelled pictures."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from edgeface.cli.training import (
    add_data_options,
    add_run_options,
    open_roots,
    progress_bar,
    run_settings,
)

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
    add_data_options(parser)
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="run's folder")
    parser.add_argument("--resume", action="store_true", help="go on from the output folder")
    parser.add_argument("--steps", type=int, metavar="N", help="stretch the recipe to N steps")
    parser.add_argument("--seed", type=int, metavar="N", help="seed instead of the recipe's")
    parser.add_argument(
        "--teacher", metavar="MODEL",
        help="model with the same anchors whose answers are learnt too: a shipped one's name or a "
        "folder (with recipes of assignment 'aligned')",
    )  # fmt: skip
    add_run_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    from edgeface.bundle import load_bundle
    from edgeface.nets import build
    from edgeface.nets.weights import load_bundle_net
    from edgeface.training.device import is_first_process, prepare
    from edgeface.training.loop import train
    from edgeface.training.recipes import choose_recipe, scale_steps
    from edgeface.training.validation import held_out_figures, held_out_pictures

    recipe = choose_recipe(args.preset, args.recipe)
    if args.steps is not None:
        recipe = scale_steps(recipe, args.steps)
    if args.seed is not None:
        recipe = replace(recipe, seed=args.seed)
    device = prepare(args.device, args.threads, recipe.seed)
    net = build(args.preset)
    teacher = None if args.teacher is None else load_bundle_net(load_bundle(args.teacher))
    settings = run_settings(args, device, resume=args.resume, teacher=teacher)
    roots = open_roots(args, args.output)
    pictures = held_out_pictures(roots, recipe.held_out)

    with progress_bar(recipe.steps, shown=is_first_process()) as bar:

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
        print(f"trained {net.preset} for {recipe.steps} steps: {weights}")
    return 0
