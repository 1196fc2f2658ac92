"""``edgeface ablate``: train with parts switched on and off, and tell what each is worth."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.bundle import write_atomic
from edgeface.cli import complain
from edgeface.cli.training import (
    add_data_options,
    add_run_options,
    open_roots,
    progress_bar,
    run_settings,
)
from edgeface.errors import InvalidOptionError, TrainingError

if TYPE_CHECKING:
    from edgeface.training.ablation.run import Examination, Run
    from edgeface.training.dataset import Root
    from edgeface.training.loop import Settings

EPILOG = """\
examples:
  edgeface ablate --data WIDER --preset refineface_mobilenet025 --table refineface-1 \\
      --steps 2000 --output runs/table-1
  edgeface ablate --data WIDER --preset retinaface_mobilenet025 --minutes 30 --seed 0 --seed 1 \\
      --arm "as it is" --arm "stronger landmarks: landmark_weight=0.3" \\
      --arm "wide: width=128, learning_rate=0.02" --output runs/landmarks

An arm is NAME: SWITCH=VALUE, SWITCH=VALUE. A switch is an option of the preset, a training term of
its system ('edgeface presets' lists both) or a value of the recipe, such as landmark_weight,
matching.positive or mix.mosaic; size, batch and crop (0.3-1) set every phase. --set does so for all
arms. The first arm is what the others are compared with.

Every arm trains for the same steps from the same seed. A finished run is not run again and a killed
one goes on, so the same command continues; run it twice at once to use two cores. The output folder
gets ablation.md, ablation.json and a folder per run.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "ablate",
        help="measure what each part of a detector is worth",
        description="Train a preset with parts switched on and off, at one short budget.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", metavar="NAME", required=True, help="net to take apart")
    arms = parser.add_mutually_exclusive_group(required=True)
    arms.add_argument(
        "--arm", metavar="NAME: SWITCH=VALUE, …", action="append", default=[],
        help="a row of the table; repeat for more",
    )  # fmt: skip
    arms.add_argument(
        "--table", metavar="NAME",
        help="the arms of a paper: retinaface-3, refineface-1, df2s2-2 or fanet-2",
    )  # fmt: skip
    parser.add_argument(
        "--only", metavar="ROW", action="append", default=[],
        help="of the table, only this row, such as 'STR + STC'; repeat for more",
    )  # fmt: skip
    parser.add_argument(
        "--set", metavar="SWITCH=VALUE, …", default="", help="switches of every arm"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, action="append", default=[],
        help="train every arm from this seed; repeat for more (default: 0)",
    )  # fmt: skip
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int, metavar="N", help="steps of each run")
    budget.add_argument(
        "--minutes", type=float, metavar="M",
        help="steps that the last arm takes about so long for",
    )  # fmt: skip
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="runs and table")
    parser.add_argument(
        "--evaluate", metavar="DIR", type=Path,
        help="WIDER FACE evaluation set (default: the pictures that are held out of training)",
    )  # fmt: skip
    parser.add_argument("--limit", metavar="N", type=int, help="of it, N pictures, spread evenly")
    parser.add_argument(
        "--long-side", metavar="PX", type=int, default=640,
        help="shrink evaluation pictures to this long side; 0 keeps their size (default: 640)",
    )  # fmt: skip
    add_data_options(parser)
    add_run_options(parser)
    parser.set_defaults(recipe="short")


def run(args: argparse.Namespace) -> int:
    """Train and examine every arm, and print the table; returns the exit code."""
    from edgeface.training.ablation.arms import apply, parse_switches
    from edgeface.training.ablation.run import check, plan
    from edgeface.training.device import prepare
    from edgeface.training.recipes import choose_recipe, scale_steps

    seeds = args.seed or [0]
    arms, ticks = _arms(args)
    preset, recipe = apply(
        parse_switches(args.set), args.preset, choose_recipe(args.preset, args.recipe)
    )
    device = prepare(args.device, args.threads, seeds[0])
    settings = run_settings(args, device, save_minutes=2)
    roots = open_roots(args, args.output)
    if args.steps is not None:
        recipe = scale_steps(recipe, args.steps)
    runs = plan(arms, seeds, preset, recipe, args.output)
    if args.minutes is not None:
        recipe = scale_steps(recipe, _steps(args, runs[-1], roots, settings))
        runs = plan(arms, seeds, preset, recipe, args.output)
    examination = _examination(args, roots, recipe.held_out)
    origin = {
        "data": [*args.data, *(f"partial {text}" for text in args.partial)],
        "initial weights": initial.name if (initial := args.weights or args.transfer) else None,
        "examination": examination.fingerprint(),
    }
    check(runs, roots, origin)
    failures = _execute(runs, roots, examination, origin, settings)
    about = {"title": args.table or "Ablation", "preset": preset, "steps": recipe.steps}
    _report(runs, ticks, about, examination, args.output)
    return 1 if failures else 0


def _arms(args: argparse.Namespace) -> tuple[list[Any], dict[str, dict[str, str]]]:
    """Arms, and the cells of ticks by arm where a paper's table gives them."""
    from edgeface.training.ablation.arms import parse_arm
    from edgeface.training.ablation.tables import find_table

    if not args.table:
        if args.only:
            raise InvalidOptionError("expected --table with --only, got --arm")
        return [parse_arm(text) for text in args.arm], {}
    table = find_table(args.table, args.preset)
    arms = table.arms()
    ticks = {arm.name: table.ticks(number) for number, arm in enumerate(arms)}
    if unknown := [name for name in args.only if name not in ticks]:
        raise InvalidOptionError(f"expected rows of {', '.join(map(repr, ticks))}, got {unknown}")
    return [arm for arm in arms if not args.only or arm.name in args.only], ticks


def _steps(args: argparse.Namespace, run: Run, roots: Sequence[Root], settings: Settings) -> int:
    """Steps for --minutes, measured once per output folder, so that a later call agrees."""
    from edgeface.training.ablation.run import steps_in

    path = args.output / "budget.json"
    budget = {} if not path.is_file() else json.loads(path.read_text("utf-8"))
    if budget.get("minutes") != args.minutes:
        steps = steps_in(args.minutes, run, roots, settings)
        budget = {"minutes": args.minutes, "arm": run.arm.name, "steps": steps}
        write_atomic(path, (json.dumps(budget) + "\n").encode())
    return int(budget["steps"])


def _examination(args: argparse.Namespace, roots: Sequence[Root], share: float) -> Examination:
    from edgeface.evaluation.wider import load_wider, spread
    from edgeface.training.ablation.run import Examination
    from edgeface.training.validation import held_out_pictures

    long_side = args.long_side or None
    if args.evaluate is not None:
        pictures = load_wider(args.evaluate, args.limit)
        return Examination(args.evaluate.resolve().name, pictures, long_side, graded=True)
    pictures = spread(held_out_pictures(roots, share), args.limit)
    if not pictures:
        raise InvalidOptionError(
            "expected pictures to evaluate on, got none: the training pictures leave none out; "
            "name a WIDER FACE evaluation set with --evaluate"
        )
    return Examination("the held-out pictures", pictures, long_side, graded=False)


def _execute(
    runs: Sequence[Run],
    roots: Sequence[Root],
    examination: Examination,
    origin: dict[str, Any],
    settings: Settings,
) -> int:
    """Execute what is not finished; returns how many runs failed."""
    from edgeface.training.ablation.run import execute

    failures = 0
    for number, run in enumerate(runs, 1):
        label = f"{run.arm.name}, seed {run.recipe.seed} ({number}/{len(runs)})"
        if run.finished:
            print(f"edgeface: {label}: done before", file=sys.stderr)
            continue
        with progress_bar(run.recipe.steps, shown=True) as bar:
            bar.set_description(label)

            def show(done: int, text: str, bar: Any = bar) -> None:
                bar.set_postfix_str(text, refresh=False)
                bar.update(done - bar.n)

            try:
                if not execute(run, roots, examination, origin, settings, show):
                    print(f"edgeface: {label}: another process is at it", file=sys.stderr)
            except TrainingError as error:
                failures += 1
                complain("error", f"{label}: {error}")
    return failures


def _report(
    runs: Sequence[Run],
    ticks: dict[str, dict[str, str]],
    about: dict[str, Any],
    examination: Examination,
    output: Path,
) -> None:
    from edgeface.training.ablation.arms import shown
    from edgeface.training.ablation.report import read_row, to_json, to_markdown

    switched = dict.fromkeys(name for run in runs for name in run.arm.switches)
    rows = []
    for arm in dict.fromkeys(run.arm.name for run in runs):
        of_arm = [run for run in runs if run.arm.name == arm]
        first = of_arm[0]
        cells = ticks.get(arm) or {
            name: shown(name, first.preset, first.recipe) for name in switched
        }
        rows.append(read_row(of_arm, cells, examination))
    text = to_markdown(rows, about, examination)
    write_atomic(output / "ablation.md", (text + "\n").encode())
    record = json.dumps(to_json(rows, about), indent=2) + "\n"
    write_atomic(output / "ablation.json", record.encode())
    print(text)
