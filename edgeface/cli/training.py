"""What the commands that train share: their options, the pictures, the progress bar."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.cache import cache_dir
from edgeface.cli.progress import LOG_SECONDS, TERMINAL_SECONDS, track
from edgeface.errors import InvalidOptionError, missing_extra

if TYPE_CHECKING:
    from edgeface.training.dataset import Root
    from edgeface.training.labels import Problem
    from edgeface.training.loop import Settings

PROBLEMS_SHOWN = 10


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add --data, --partial and --cache."""
    parser.add_argument(
        "--data", metavar="DIR[=WEIGHT]", action="append", default=[],
        help="pictures with every face labelled, or none in them; repeat to mix folders",
    )  # fmt: skip
    parser.add_argument(
        "--partial", metavar="DIR[=WEIGHT]", action="append", default=[],
        help="pictures with some faces labelled: what is not labelled is ignored",
    )  # fmt: skip
    parser.add_argument(
        "--cache", metavar="DIR", type=Path,
        help="folder of decoded pictures (default: edgeface's cache)",
    )  # fmt: skip


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides how a net is trained: initial weights, recipe, device, threads, workers."""
    initial = parser.add_mutually_exclusive_group()
    initial.add_argument(
        "--weights", metavar="FILE", type=Path,
        help="initial weights of the net or its backbone (.safetensors)",
    )  # fmt: skip
    initial.add_argument(
        "--transfer", metavar="FILE", type=Path,
        help="initial weights of another net; those are taken that fit by name and shape",
    )  # fmt: skip
    parser.add_argument(
        "--recipe", metavar="NAME|FILE",
        help="paper, short (ours, small samples), scratch (ours, from fresh weights), further "
        "(ours, after scratch), aligned (ours, from earlier weights), finish (ours, large samples "
        "after aligned) or a JSON file (default: ours for this preset)",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the net")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes that make samples (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="compile the net with torch")


def run_settings(args: argparse.Namespace, device: str, **others: Any) -> Settings:
    """How a run is executed, by the options of ``add_run_options``, --output and ``others``."""
    from edgeface.training.loop import Settings

    return Settings(
        args.output,
        weights=args.weights,
        transfer=args.transfer,
        device=device,
        workers=args.workers,
        compiled=args.compile,
        **others,
    )


def open_roots(args: argparse.Namespace, output: Path) -> list[Root]:
    """Read the labels of the folders that the options name and decode their pictures.

    Labels and pictures that cannot be used are reported on stderr and left out.

    Args:
        args: with the options of ``add_data_options``.
        output: where the decoded pictures go if neither --cache nor edgeface's cache will do.

    Raises:
        InvalidOptionError: no folder, or a weight that is none.
        DatasetError: a folder that cannot be used.
    """
    if not args.data and not args.partial:
        raise InvalidOptionError("expected pictures to train on, got none; name them with --data")
    cache = args.cache or (cache_dir() or output) / "pictures"
    roots = [_root(text, cache, partial=False) for text in args.data]
    roots += [_root(text, cache, partial=True) for text in args.partial]
    return roots


def progress_bar(steps: int, *, shown: bool) -> Any:
    """A tqdm bar over steps, as a context; MissingDependencyError where tqdm is absent."""
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
