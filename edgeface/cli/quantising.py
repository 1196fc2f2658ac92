"""Options of ``edgeface export`` for int8: what to calibrate with, and how."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.cli.calibrate import add_draw_options, draw_set, face_finder
from edgeface.cli.progress import track
from edgeface.errors import InvalidOptionError

if TYPE_CHECKING:
    from edgeface.calibration.quantize import QuantizationOptions
    from edgeface.calibration.subset import CalibrationSet
    from edgeface.nets import DetectorNet

Size = tuple[int, int]


def add_calibration_options(parser: argparse.ArgumentParser) -> None:
    """Add a group with --calibration, --data, how to draw, --method and --keep-float."""
    group = parser.add_argument_group("int8")
    group.add_argument(
        "--calibration", metavar="FILE", type=Path,
        help="the pictures that 'edgeface calibrate' drew",
    )  # fmt: skip
    group.add_argument(
        "--data", metavar="DIR", type=Path,
        help="draw the pictures from this folder; with --calibration: where its pictures are now",
    )  # fmt: skip
    add_draw_options(group)
    group.add_argument(
        "--method", metavar="NAME",
        help="minmax, percentile, entropy or mse (default: mse)",
    )  # fmt: skip
    group.add_argument(
        "--per-tensor", action="store_true", help="one scale per weight instead of one per channel"
    )
    group.add_argument(
        "--keep-float", metavar="LAYER", action="append", default=[],
        help="leave this layer in float, as backbone.stage1.2.0; repeat for several",
    )  # fmt: skip


def check_calibration_options(
    args: argparse.Namespace, precisions: Sequence[str], input_sizes: Sequence[Size]
) -> None:
    """Raise InvalidOptionError where int8 lacks pictures, or they lack int8."""
    given = args.calibration or args.data
    if "int8" in precisions and given is None:
        raise InvalidOptionError(
            "expected pictures to calibrate int8 with, got none; draw them with 'edgeface "
            "calibrate' and pass --calibration FILE, or pass --data DIR"
        )
    if "int8" not in precisions and given is not None:
        raise InvalidOptionError(
            f"expected calibration pictures for int8 alone, got --precision {args.precision}; "
            "use --precision int8 or all"
        )
    if "int8" in precisions and len(input_sizes) > 1:
        raise InvalidOptionError(
            f"expected one --input-size at int8, got {len(input_sizes)}; export each by itself"
        )


def calibration_set(
    args: argparse.Namespace, net: DetectorNet, input_sizes: Sequence[Size]
) -> CalibrationSet:
    """Read or draw the pictures, for a net."""
    from edgeface.calibration.subset import Preprocess, check_fits, read_manifest
    from edgeface.converters.parity import pad_value

    size = input_sizes[0] if input_sizes else args.frame_size
    preprocess = Preprocess(size, net.anchors.max_stride, pad_value(net))
    if args.calibration is None:
        finder = face_finder(args.model) if args.model else None
        return draw_set(args, preprocess, finder).calibration
    calibration = read_manifest(args.calibration, args.data)
    check_fits(calibration, preprocess)
    return calibration.resized(size) if input_sizes else calibration


def describe(calibration: CalibrationSet, args: argparse.Namespace) -> dict[str, Any]:
    """What the manifest of a bundle says of its calibration."""
    from edgeface.calibration.quantize import DEFAULT_METHOD

    return {
        "sha256": calibration.digest,
        "pictures": len(calibration),
        "strategy": calibration.strategy,
        "seed": calibration.seed,
        "method": args.method or DEFAULT_METHOD,
    }


def options(args: argparse.Namespace) -> QuantizationOptions:
    """How to quantise."""
    from edgeface.calibration.quantize import QuantizationOptions

    return QuantizationOptions(args.method, not args.per_tensor, tuple(args.keep_float))


def quantiser(
    calibration: CalibrationSet, args: argparse.Namespace
) -> Callable[[str, bytes], bytes]:
    """Make the function that quantises a target's float32 file."""
    from edgeface.calibration.quantize import quantize

    how = options(args)

    def quantise(target: str, source: bytes) -> bytes:
        return quantize(target, source, calibration, how, partial(track, unit="picture"))

    return quantise
