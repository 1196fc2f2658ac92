"""``edgeface export``: weights to a bundle that every backend loads."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.bundle import PRECISIONS, WEIGHT_PRECISIONS, load_bundle
from edgeface.cli.gating import add_gate_options, check_gate_options, make_gate
from edgeface.cli.progress import track
from edgeface.cli.quantising import (
    add_calibration_options,
    calibration_set,
    check_calibration_options,
    describe,
    options,
    quantiser,
)
from edgeface.errors import InvalidOptionError

if TYPE_CHECKING:
    from edgeface.converters.bundle import Conversion
    from edgeface.nets import DetectorNet

DYNAMIC = "dynamic"
EPILOG = """\
examples:
  edgeface export --checkpoint runs/first/weights.safetensors \\
      --preset retinaface_mobilenet025 -o models/first
  edgeface export --model models/first --precision all --data WIDER -o models/small
  edgeface export --model models/first --target openvino --precision int8 \\
      --calibration calibration.json -o models/openvino
  edgeface export --model models/first --precision int8 --calibration calibration.json \\
      --evaluate WIDER --evaluate LABELS --explain layers/ -o models/judged
  edgeface export --model retinaface_mobilenet025 --input-size 320x256 --batch 1 \\
      -o models/static                           static graphs, for NPU and GPU delegates

Every graph is compared with torch on pictures that the export has not seen, on each backend that
is installed; where one differs, nothing is written. int8 needs pictures to calibrate with: the list
that 'edgeface calibrate' wrote, or a folder to draw them from. With --evaluate, int8 is written
only where it is nearly as accurate as fp32.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "export",
        help="convert weights to what the backends run, at fp32, fp16 and int8",
        description="Convert weights to a bundle for Detector(model=...).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", metavar="NAME|DIR", help="a shipped model or a bundle that holds its weights"
    )
    source.add_argument(
        "--checkpoint", metavar="FILE", type=Path, action="append",
        help="weights of a training run (.safetensors or .pt); needs --preset; repeat for the mean "
        "of several runs' weights",
    )  # fmt: skip
    parser.add_argument("--preset", help="net that the checkpoint belongs to")
    parser.add_argument(
        "--target", metavar="NAME", default="all",
        help="onnx (ONNX Runtime), openvino, tflite, tensorrt or all; several with commas "
        "(default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", metavar="NAME", default="fp32",
        help="fp32, fp16, int8 or all; several with commas, and for one target alone as "
        "tensorrt:fp16 (default: fp32)",
    )  # fmt: skip
    parser.add_argument(
        "--input-size", metavar="WxH|dynamic", action="append", default=[],
        help="make the graphs static for this size; repeat for several in one TFLite file "
        "(default: dynamic, any size)",
    )  # fmt: skip
    parser.add_argument(
        "--batch", metavar="N|dynamic", type=batch_size,
        help="make ONNX graphs static for N frames at once (default: dynamic, any number)",
    )  # fmt: skip
    parser.add_argument(
        "--metadata", metavar="FILE", type=Path,
        help="JSON object for the manifest: licence, training data, recipe, accuracy",
    )  # fmt: skip
    parser.add_argument(
        "--card", metavar="FILE", type=Path, help="model card in Markdown (default: the model's)"
    )
    parser.add_argument(
        "--store-weights", metavar="NAME", choices=WEIGHT_PRECISIONS, default=WEIGHT_PRECISIONS[0],
        help="precision of the training weights in the bundle: fp32, or fp16, to which they are "
        "rounded before the conversion (default: fp32)",
    )  # fmt: skip
    add_output_options(parser)
    add_calibration_options(parser)
    add_gate_options(parser)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add --name, --output and --force."""
    parser.add_argument("--name", help="name of the model (default: the output folder's)")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, required=True, help="folder of the bundle"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a bundle that is already there"
    )


def run(args: argparse.Namespace) -> int:
    """Export, print the comparison with torch, and name the bundle."""
    from edgeface.converters.bundle import MODEL_CARD, check_output, check_static, convert
    from edgeface.nets.weights import (
        describe_source,
        load_bundle_net,
        load_weights,
        read_mean_weights,
        round_to_half,
    )

    wanted = wanted_files(args.target, args.precision)
    targets, precisions = zip(*wanted, strict=True)
    input_sizes = [parse_size(size) for size in args.input_size if size != DYNAMIC]
    for target in targets:
        check_static(target, input_sizes, args.batch)
    check_calibration_options(args, precisions, input_sizes)
    check_gate_options(args, precisions)
    check_output(args.output, args.force)
    if args.model is not None:
        if args.preset is not None:
            raise InvalidOptionError(
                f"expected --preset only with --checkpoint, got '{args.preset}' with --model; "
                "drop it, the model knows its preset"
            )
        bundle = load_bundle(args.model)
        net = load_bundle_net(bundle)
        metadata, card = bundle.metadata, bundle.path / MODEL_CARD
    elif args.preset is None:
        raise InvalidOptionError(
            "expected --preset with --checkpoint, got none; name the preset that it was trained as"
        )
    else:
        net = load_weights(args.preset, read_mean_weights(args.checkpoint))
        metadata, card = describe_source(*args.checkpoint), None
    if args.store_weights == "fp16":
        round_to_half(net)
    if args.metadata is not None:
        metadata = {**metadata, **_read_metadata(args.metadata)}
    card = args.card or card
    model_card = card.read_text("utf-8") if card and card.is_file() else None
    if args.card and model_card is None:
        raise InvalidOptionError(f"expected a model card in '{args.card}', found no such file")
    quantise = gate = None
    if "int8" in precisions:
        calibration = calibration_set(args, net, input_sizes)
        metadata = {**metadata, "calibration": describe(calibration, args)}
        if args.evaluate:
            gate = make_gate(args, calibration, options(args), net, input_sizes)
        quantise = gate.quantise if gate else quantiser(calibration, args)
    conversion = convert(
        net, wanted, input_sizes, quantise, partial(track, unit="file"), args.batch
    )
    if gate:
        metadata = {**metadata, "int8": gate.record}
    write(args, net, conversion, metadata, model_card, args.store_weights)
    return 0


def wanted_files(target: str, precision: str) -> list[tuple[str, str]]:
    """Read --target and --precision as pairs of both, in order, each once."""
    from edgeface.converters.bundle import TARGETS

    targets = TARGETS if target == "all" else tuple(target.split(","))
    pairs: list[tuple[str, str]] = []
    for part in precision.split(","):
        only, _, name = part.rpartition(":")
        names = PRECISIONS if name == "all" else (name,)
        pairs += [(one, name) for name in names for one in ((only,) if only else targets)]
    return list(dict.fromkeys(pairs))


def write(
    args: argparse.Namespace,
    net: DetectorNet,
    conversion: Conversion,
    metadata: Mapping[str, Any],
    model_card: str | None = None,
    weights: str = WEIGHT_PRECISIONS[0],
) -> None:
    """Write the bundle that the output options name, and print the comparison and the files."""
    from edgeface.converters.bundle import write_bundle

    bundle = write_bundle(
        args.name or args.output.absolute().name,
        net,
        conversion,
        args.output,
        metadata,
        weights=weights,
        model_card=model_card,
        force=args.force,
    )
    print(conversion.report.to_markdown())
    for artifact in bundle.artifacts:
        size = (bundle.path / artifact.file).stat().st_size / 1e6
        print(f"{args.output / artifact.file}: {size:.2f} MB, sha256 {artifact.sha256}")


def _read_metadata(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidOptionError(
            f"expected a JSON object in '{path}' for --metadata, got: {error}"
        ) from error
    if not isinstance(content, dict):
        raise InvalidOptionError(
            f"expected a JSON object in '{path}' for --metadata, got a {type(content).__name__}"
        )
    return content


def batch_size(text: str) -> int | None:
    """Read --batch; None stands for "dynamic"."""
    if text == DYNAMIC:
        return None
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise argparse.ArgumentTypeError(
            f"expected a number of frames or '{DYNAMIC}', got '{text}'"
        )
    return int(text)


def parse_size(text: str) -> tuple[int, int]:
    """Read "640x480" as (width, height); raises InvalidOptionError for anything else."""
    match = re.fullmatch(r"([1-9]\d*)[xX]([1-9]\d*)", text)
    if match is None:
        raise InvalidOptionError(f"expected --input-size as WIDTHxHEIGHT in pixels, got '{text}'")
    return int(match[1]), int(match[2])
