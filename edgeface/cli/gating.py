"""Options of ``edgeface export`` that judge int8 before it is written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.bundle import write_atomic
from edgeface.cli.files import check_writable
from edgeface.cli.progress import track
from edgeface.errors import InvalidOptionError

if TYPE_CHECKING:
    from edgeface.calibration.publish import Judge, Published
    from edgeface.calibration.quantize import QuantizationOptions
    from edgeface.calibration.subset import CalibrationSet
    from edgeface.nets import DetectorNet

SKETCH_FRAMES = 16


def add_evaluation_options(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, *, required: bool = False
) -> None:
    """Add --evaluate, --held-out and --limit."""
    parser.add_argument(
        "--evaluate", metavar="DIR", type=Path, action="append", default=[], required=required,
        help="pictures to measure on; give it twice: a folder with WIDER FACE's ground truth, and "
        "one with a label.txt with landmarks",
    )  # fmt: skip
    parser.add_argument(
        "--held-out", metavar="SHARE", type=float,
        help="of label.txt take only the pictures that a training with this share held out "
        "(default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", metavar="N", type=int, help="use at most N pictures of each (default: all)"
    )


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    """Add a group with --evaluate, --accept-accuracy-drop and --explain."""
    group = parser.add_argument_group(
        "accuracy of int8",
        "With --evaluate, int8 is written only where it keeps 99%% of fp32's average precision and "
        "at most 5%% more landmark error; the layers that cost most stay in float until it does.",
    )
    add_evaluation_options(group)
    group.add_argument(
        "--accept-accuracy-drop", action="store_true",
        help="write int8 from 95%% and up to 25%% more landmark error; its manifest says so",
    )  # fmt: skip
    group.add_argument(
        "--explain", metavar="DIR", type=Path,
        help="write what each layer costs, as a table and a plot for every target",
    )  # fmt: skip


def check_gate_options(args: argparse.Namespace, precisions: Sequence[str]) -> None:
    """Raise InvalidOptionError where the gate has nothing to judge, or nothing to judge with."""
    if args.evaluate and "int8" not in precisions:
        raise InvalidOptionError(
            f"expected --evaluate with int8 alone, got --precision {args.precision}; "
            "use --precision int8 or all"
        )
    if (args.explain or args.accept_accuracy_drop) and not args.evaluate:
        raise InvalidOptionError(
            "expected --evaluate with --explain and --accept-accuracy-drop, got none; name the "
            "pictures to measure on"
        )
    if args.explain is not None:
        check_writable("--explain", args.explain / "onnx.md")


class Gate:
    """Quantises for one target after another, and keeps what was measured for the manifest."""

    def __init__(
        self,
        args: argparse.Namespace,
        judge: Judge,
        calibration: CalibrationSet,
        options: QuantizationOptions,
    ) -> None:
        self._args = args
        self._judge = judge
        self._calibration = calibration
        self._options = options
        self.record: dict[str, Any] = {}

    def quantise(self, target: str, source: bytes) -> bytes:
        """Make the int8 file of a target, accurate enough to be published.

        Raises:
            AccuracyError: it cannot be.
        """
        from edgeface.calibration.publish import publish
        from edgeface.calibration.quantize import quantizable_layers

        every, few = self._calibration, self._calibration[:SKETCH_FRAMES]
        published = publish(
            target,
            source,
            quantizable_layers(target, source),
            partial(self._quantise, target, source, every),
            self._judge,
            sketch=partial(self._quantise, target, source, few),
            accept_drop=self._args.accept_accuracy_drop,
            explain=self._args.explain is not None,
        )
        print(f"int8 for {target}: {published.verdict}")
        if published.fallback:
            print(f"int8 for {target}: {published.fallback}")
        if self._args.explain is not None:
            self._explain(target, published)
        self.record[target] = published.to_dict()
        return published.content

    def _quantise(
        self, target: str, source: bytes, frames: CalibrationSet, keep_float: frozenset[str]
    ) -> bytes:
        from edgeface.calibration.quantize import quantize

        kept = dict.fromkeys([*self._options.keep_float, *sorted(keep_float)])
        options = replace(self._options, keep_float=tuple(kept))
        return quantize(target, source, frames, options)

    def _explain(self, target: str, published: Published) -> None:
        from edgeface.calibration.sensitivity import plot, to_markdown

        folder, costs = self._args.explain, published.costs
        table = to_markdown(costs)
        record = json.dumps([cost.to_dict() for cost in costs], indent=2)
        write_atomic(folder / f"{target}.md", f"{table}\n".encode())
        write_atomic(folder / f"{target}.json", f"{record}\n".encode())
        write_atomic(folder / f"{target}.png", plot(costs, f"int8 for {target}"))
        print(f"\n{table}\n\n{folder / f'{target}.png'}")


def make_gate(
    args: argparse.Namespace,
    calibration: CalibrationSet,
    options: QuantizationOptions,
    net: DetectorNet,
    input_sizes: Sequence[tuple[int, int]],
) -> Gate:
    """Load the evaluation data, without the calibration's pictures, and make the gate.

    Raises:
        InvalidOptionError: the folders lack one of the two kinds of data.
        DatasetError: a folder cannot be used.
    """
    from edgeface.calibration.accuracy import load_evaluation_data
    from edgeface.calibration.publish import Judge
    from edgeface.calibration.trial import Geometry
    from edgeface.converters.parity import pad_value

    data = load_evaluation_data(
        args.evaluate,
        held_out_share=args.held_out,
        exclude=[Path(picture.name).name for picture in calibration.pictures],
    )
    if args.limit is not None:
        data = data.limit(args.limit)
    judge = Judge(Geometry(net.anchors, pad_value(net)), data, show, input_sizes=input_sizes)
    return Gate(args, judge, calibration, options)


def show(items: Sequence[Any], description: str) -> Iterable[Any]:
    """Show progress over pictures or layers."""
    return track(items, description)
