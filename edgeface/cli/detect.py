"""``edgeface detect``: faces in pictures, folders of pictures, and videos."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import write_atomic
from edgeface.cli import complain
from edgeface.cli.drawing import video_writer, write_picture
from edgeface.cli.files import Source, check_writable, collect, plan_drawings
from edgeface.cli.options import add_detector_options
from edgeface.cli.progress import track
from edgeface.errors import InferenceError, InvalidImageError, missing_extra
from edgeface.faces import LANDMARK_NAMES
from edgeface.imageio import read_image
from edgeface.video import Video

if TYPE_CHECKING:
    from edgeface.detector import Detector

Record = dict[str, Any]

EPILOG = """\
examples:
  edgeface detect photo.jpg --out faces.jpg
  edgeface detect holiday/ --recursive --out drawn/ --json faces.json
  edgeface detect clip.mp4 --out faces.mp4 --csv faces.csv
  edgeface detect --sample --out faces.png      a picture that comes with the extra 'samples'

One line is printed per input. A file that cannot be read is reported on stderr, the others go
on, and the exit code is 1. Output files appear whole or not at all.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "detect",
        help="find faces in pictures, folders and videos",
        description="Find faces in pictures, folders and videos.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(usage_error=parser.error)
    parser.add_argument("inputs", nargs="*", metavar="IMAGE|DIR|VIDEO", help="what to look at")
    parser.add_argument("--sample", action="store_true", help="look at scikit-image's astronaut")
    parser.add_argument("--recursive", action="store_true", help="enter folders within folders")

    outputs = parser.add_argument_group("outputs")
    outputs.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="draw the faces: a file for one input, a folder for several; videos become .mp4",
    )
    outputs.add_argument(
        "--json", type=Path, metavar="FILE", help="boxes, scores and landmarks of every input"
    )
    outputs.add_argument(
        "--csv", type=Path, metavar="FILE", help="the same as a table, one row per face"
    )

    detector = add_detector_options(parser)
    detector.add_argument(
        "--input-size",
        type=input_size,
        default=640,
        metavar="640|WxH|none",
        help="long side, exact size, or the picture's own size (default: 640)",
    )
    detector.add_argument(
        "--score-threshold",
        type=float,
        default=0.5,
        metavar="S",
        help="drop faces that score less (default: %(default)s)",
    )
    detector.add_argument(
        "--nms-threshold",
        type=float,
        default=0.4,
        metavar="IOU",
        help="of two boxes that overlap more, drop the weaker (default: %(default)s)",
    )
    detector.add_argument(
        "--max-faces", type=int, metavar="N", help="keep the best N faces (default: all)"
    )


def input_size(text: str) -> int | tuple[int, int] | None:
    """Read what --input-size says: 640, 640x480 or none."""
    if text.lower() == "none":
        return None
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) == 1:
        return sides[0]
    if len(sides) == 2:
        return sides[0], sides[1]
    raise argparse.ArgumentTypeError(
        f"expected a long side (640), a size (640x480) or none, got {text!r}"
    )


def run(args: argparse.Namespace) -> int:
    """Detect faces in every input; return 1 where one of them failed."""
    if not args.inputs and not args.sample:
        args.usage_error("expected an IMAGE, DIR or VIDEO, or --sample")
    sources = collect(args.inputs, recursive=args.recursive, sample=args.sample)
    drawings: list[Path] | list[None] = [None] * len(sources)
    if args.out is not None:
        into_folder = any(Path(name).is_dir() for name in args.inputs)
        drawings = plan_drawings(sources, args.out, into_folder=into_folder)
    for option, path in (("--json", args.json), ("--csv", args.csv)):
        if path is not None:
            check_writable(option, path)

    with open_detector(args) as detector:
        records = [
            detect(detector, source, drawing)
            for source, drawing in zip(sources, drawings, strict=True)
        ]
    if args.json is not None:
        write_atomic(args.json, (json.dumps(records, indent=2) + "\n").encode())
    if args.csv is not None:
        write_atomic(args.csv, table(records).encode())
    failed = sum("error" in record for record in records)
    if len(records) > 1:
        print(f"{len(records)} inputs, {failed} failed")
    return 1 if failed else 0


def open_detector(args: argparse.Namespace) -> Detector:
    """Make the detector that the options describe."""
    from edgeface.detector import Detector

    return Detector(
        args.backend,
        model=args.model,
        precision=args.precision,
        input_size=args.input_size,
        score_threshold=args.score_threshold,
        nms_threshold=args.nms_threshold,
        max_faces=args.max_faces,
        threads=args.threads,
    )


def detect(detector: Detector, source: Source, drawing: Path | None) -> Record:
    """Detect in one input and print its line; a file that cannot be read is reported."""
    try:
        if source.path is None:
            return detect_picture(detector, source.name, sample_picture(), drawing)
        if source.is_video:
            return detect_video(detector, source.name, source.path, drawing)
        return detect_picture(detector, source.name, read_image(source.path), drawing)
    except (InvalidImageError, InferenceError) as error:
        complain("error", f"{source.name}: {error}")
        return {"file": source.name, "error": str(error)}


def detect_picture(
    detector: Detector, name: str, image: NDArray[np.uint8], drawing: Path | None
) -> Record:
    """Detect in one picture."""
    faces = detector(image)
    if drawing is not None:
        write_picture(drawing, faces.draw(image))
    best = f", best {faces.scores[0]:.3f}" if len(faces) else ""
    print(f"{name}: {count(len(faces))}{best}, {milliseconds(detector):.1f} ms")
    height, width = image.shape[:2]
    return {"file": name, "width": width, "height": height, **faces.to_dict()}


def detect_video(detector: Detector, name: str, path: Path, drawing: Path | None) -> Record:
    """Detect in every frame of a video."""
    frames: list[Record] = []
    best, spent = 0.0, 0.0
    with ExitStack() as stack:
        video = stack.enter_context(Video(path))
        append = None
        if drawing is not None:
            writer = video_writer(drawing, video.fps, video.width, video.height)
            append = stack.enter_context(writer)
        for image in track(video, name, total=video.frame_count or None, unit="frame"):
            faces = detector(image)
            if append is not None:
                append(faces.draw(image))
            frames.append({"frame": len(frames), **faces.to_dict()})
            best = max(best, *faces.scores.tolist(), 0.0)
            spent += milliseconds(detector)
    if len(frames) < video.frame_count:
        ended = f"ended after {len(frames)} of the {video.frame_count} frames that it announces"
        complain("warning", f"{name}: {ended}; it may be cut off")
    most = max(len(frame["faces"]) for frame in frames)
    found = f"at most {count(most)} in one, best {best:.3f}" if most else count(most)
    print(f"{name}: {len(frames)} frames, {found}, {spent / len(frames):.1f} ms a frame")
    size = {"width": video.width, "height": video.height, "fps": video.fps}
    return {"file": name, **size, "frames": frames}


def sample_picture() -> NDArray[np.uint8]:
    """scikit-image's astronaut, BGR uint8 (512, 512, 3); NASA, public domain.

    Raises:
        MissingDependencyError: scikit-image is not installed.
    """
    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise missing_extra("scikit-image", "samples") from error
    return np.asarray(cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR), np.uint8)


def count(faces: int) -> str:
    """Say a number of faces in words."""
    return "no face" if faces == 0 else "1 face" if faces == 1 else f"{faces} faces"


def milliseconds(detector: Detector) -> float:
    """Time of the last call, all stages."""
    return sum(detector.profile.values())


def table(records: list[Record]) -> str:
    """One CSV row per face: file, frame (of a video), box, score and landmarks, in pixels."""
    landmarks = [f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "frame", "x1", "y1", "x2", "y2", "score", *landmarks])
    for record in records:
        for frame, face in _faces(record):
            points = [value for point in face.get("landmarks", {}).values() for value in point]
            writer.writerow([record["file"], frame, *face["box"], face["score"], *points])
    return text.getvalue()


def _faces(record: Record) -> Iterator[tuple[int | str, Record]]:
    for face in record.get("faces", []):
        yield "", face
    for frame in record.get("frames", []):
        for face in frame["faces"]:
            yield frame["frame"], face
