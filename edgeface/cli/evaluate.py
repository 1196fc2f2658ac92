"""``edgeface eval``: accuracy on WIDER FACE, or the error of the landmarks."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.bundle import write_atomic
from edgeface.cli.files import check_writable
from edgeface.cli.options import add_detector_options
from edgeface.cli.progress import track
from edgeface.errors import InvalidOptionError

if TYPE_CHECKING:
    from edgeface.detector import Detector
    from edgeface.evaluation.protocols import Protocol
    from edgeface.evaluation.report import LandmarkReport, Report

EPILOG = """\
examples:
  edgeface eval --data WIDER --long-side 640          the official easy/medium/hard AP
  edgeface eval --data WIDER --original --json ap.json
  edgeface eval --data WIDER --backend openvino --precision fp32
  edgeface eval --data WIDER --protocol retinaface    flip, five sizes, box voting
  edgeface eval --data WIDER --original --flip --box-voting 0.4
  edgeface eval --data WIDER --predictions results/   score what another detector wrote
  edgeface eval --data LABELS                         landmark error, where it holds label.txt

WIDER holds the validation pictures (images/ or WIDER_val/images/, by event) and the official
.mat files (beside them, or in ground_truth/, wider_face_split/ or eval_tools/ground_truth/).
Whatever pictures are there are scored. Settings: scores above 0.02, NMS at 0.4, 750 faces kept,
unless a paper's --protocol has others; --scales, --flip and --box-voting change it.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "eval",
        help="measure accuracy on WIDER FACE",
        description="Measure accuracy on WIDER FACE, by the official protocol, or of landmarks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help="the dataset")
    parser.add_argument(
        "--limit", metavar="N", type=int, help="use N pictures, spread evenly (default: all)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure")
    parser.add_argument(
        "--predictions",
        metavar="DIR",
        type=Path,
        help="score these EVENT/NAME.txt files in the official format instead of a model",
    )
    parser.add_argument(
        "--save-predictions", metavar="DIR", type=Path, help="write detections in that format"
    )

    detector = add_detector_options(parser)
    size = detector.add_mutually_exclusive_group()
    size.add_argument(
        "--long-side",
        type=int,
        default=640,
        metavar="PX",
        help="shrink larger pictures to this long side (default: 640)",
    )
    size.add_argument(
        "--original",
        dest="long_side",
        action="store_const",
        const=None,
        help="keep every picture's own size",
    )

    views = parser.add_argument_group("test-time options of the papers")
    views.add_argument(
        "--protocol", metavar="NAME",
        help="a paper's settings: retinaface, refineface, isrn, df2s2 or fanet",
    )  # fmt: skip
    views.add_argument(
        "--scales", metavar="PX,…", type=_edges,
        help="look at every picture with each of these short edges, such as 500,800,1100",
    )  # fmt: skip
    views.add_argument("--flip", action="store_true", help="look at the mirror image as well")
    views.add_argument(
        "--box-voting", metavar="IOU", type=float,
        help="average boxes that overlap by this much, instead of NMS",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the figures as Markdown."""
    if args.json is not None:
        check_writable("--json", args.json)
    if (args.data / "label.txt").is_file():
        record, text = landmark_accuracy(args)
    else:
        record, text = wider_accuracy(args)
    print(text)
    if args.json is not None:
        write_atomic(args.json, (json.dumps(record, indent=2) + "\n").encode())
    return 0


def wider_accuracy(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Score a model's or another detector's faces against WIDER FACE's ground truth."""
    from edgeface.evaluation.predictions import read_predictions, write_predictions
    from edgeface.evaluation.run import detect, score
    from edgeface.evaluation.testtime import ManyViews
    from edgeface.evaluation.wider import load_wider

    if args.predictions is not None and args.save_predictions is not None:
        raise InvalidOptionError(
            "expected --predictions or --save-predictions, got both; predictions are only written "
            "where a model makes them"
        )
    if args.save_predictions is not None:
        check_writable("--save-predictions", args.save_predictions / "EVENT")
    protocol = chosen_protocol(args)
    if args.predictions is not None and protocol:
        raise InvalidOptionError(
            "expected --predictions as they are, got options of how a model looks at pictures; "
            "drop --protocol, --scales, --flip and --box-voting"
        )
    dataset = load_wider(args.data, args.limit)
    if args.predictions is not None:
        settings: dict[str, Any] = {"predictions": str(args.predictions)}
        title = f"predictions in {args.predictions}"
        detections = read_predictions(args.predictions, dataset)
    else:
        with open_detector(args, protocol) as detector:
            settings, title = describe(args, detector, protocol)
            predict = ManyViews(detector, protocol) if protocol else detector
            detections = detect(predict, track(dataset, "evaluating", unit="picture"))
    if args.save_predictions is not None:
        write_predictions(args.save_predictions, dataset, detections)
    report = score(detections, dataset)
    return {**settings, **report.to_dict()}, f"{title}\n\n{wider_tables(report)}"


def landmark_accuracy(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Measure the landmarks of the faces that ``label.txt`` labels with five points."""
    from edgeface.evaluation.landmarks import evaluate_landmarks
    from edgeface.evaluation.testtime import ManyViews
    from edgeface.evaluation.wider import spread
    from edgeface.training.labels import read_labels

    if args.predictions is not None or args.save_predictions is not None:
        raise InvalidOptionError(
            f"expected WIDER FACE's ground truth for predictions in text form, got {args.data} "
            "with a label.txt, whose landmarks that form does not hold; drop --predictions and "
            "--save-predictions"
        )
    images = spread(read_labels(args.data).annotations, args.limit)
    protocol = chosen_protocol(args)
    with open_detector(args, protocol) as detector:
        settings, title = describe(args, detector, protocol)
        predict = ManyViews(detector, protocol) if protocol else detector
        report = evaluate_landmarks(predict, track(images, "evaluating", unit="picture"))
    return {**settings, **report.to_dict()}, f"{title}\n\n{landmark_table(report)}"


def chosen_protocol(args: argparse.Namespace) -> Protocol | None:
    """The protocol that the options name and change; None: one view, by the detector itself."""
    from edgeface.evaluation.protocols import Protocol, find_protocol

    if args.protocol is None and not (args.scales or args.flip or args.box_voting is not None):
        return None
    protocol = Protocol() if args.protocol is None else find_protocol(args.protocol)
    if args.scales:
        protocol = replace(protocol, short_edges=args.scales)
    if args.flip:
        protocol = replace(protocol, flip=True)
    if args.box_voting is not None:
        protocol = replace(protocol, box_voting=args.box_voting)
    protocol.check()
    return protocol


def open_detector(args: argparse.Namespace, protocol: Protocol | None = None) -> Detector:
    """Load the model at the operating point, with the settings of published figures."""
    from edgeface.detector import Detector
    from edgeface.evaluation.run import MAX_FACES, NMS_THRESHOLD, SCORE_THRESHOLD

    sizes = protocol.short_edges if protocol else ()
    return Detector(
        args.backend,
        model=args.model,
        precision=args.precision,
        input_size=None if sizes else args.long_side,
        score_threshold=protocol.score_threshold if protocol else SCORE_THRESHOLD,
        nms_threshold=1.0 if protocol else NMS_THRESHOLD,
        max_faces=None if protocol else MAX_FACES,
        threads=args.threads,
    )


def describe(
    args: argparse.Namespace, detector: Detector, protocol: Protocol | None = None
) -> tuple[dict[str, Any], str]:
    """What every table of accuracy must say: the model, what ran it, and the picture size."""
    chosen = detector.explain()
    size = "original size" if args.long_side is None else f"long side {args.long_side}"
    if protocol:
        size = ", ".join(([] if protocol.short_edges else [size]) + [protocol.describe()])
    settings = {
        "model": chosen.model,
        "precision": chosen.precision,
        "size": size,
        "backend": chosen.backend,
        "runtime": dict(chosen.facts),
    }
    if protocol:
        settings["protocol"] = asdict(protocol)
    facts = ", ".join(f"{name} {value}" for name, value in chosen.facts.items())
    return settings, f"{chosen.model} {chosen.precision} · {size} · {chosen.backend} ({facts})"


def _edges(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(edge) for edge in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected short edges in pixels, such as 500,800,1100, got {text!r}"
        ) from error


def wider_tables(report: Report) -> str:
    """AP, and recall by face height, as Markdown."""
    lines = [
        "| easy | medium | hard | mAP@0.5:0.95 |",
        "|---|---|---|---|",
        report.to_markdown(),
        "",
        f"Pictures: {report.images}; faces of the hard subset: {report.faces}. Recall by height in "
        "the original picture:",
        "",
        "| height px | faces | score ≥ 0.02 | score ≥ 0.5 |",
        "|---|---|---|---|",
        *(row.to_markdown() for row in report.recall_by_height),
    ]
    return "\n".join(lines)


def landmark_table(report: LandmarkReport) -> str:
    """Landmark error as Markdown."""
    lines = [
        "| pictures | faces | found | mean NME % | median NME % |",
        "|---|---|---|---|---|",
        report.to_markdown(),
    ]
    return "\n".join(lines)
