"""``edgeface detect``: faces in pictures, folders of pictures, and videos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.cli import archive, complain
from edgeface.cli.drawing import video_writer, write_picture
from edgeface.cli.files import Source, check_outputs, collect, plan_drawings
from edgeface.cli.options import add_frame_options
from edgeface.cli.progress import track
from edgeface.errors import InferenceError, InvalidImageError, missing_extra
from edgeface.faces import DEFAULT_SCORE_THRESHOLD
from edgeface.imageio import read_image
from edgeface.outputs import OUTPUTS, Output, Shot
from edgeface.video import Video

if TYPE_CHECKING:
    from edgeface.detector import Detector

DETECTOR_OPTIONS = (
    *("backend", "model", "precision", "input_size", "score_threshold", "nms_threshold"),
    *("max_faces", "min_face", "roi", "tile", "threads"),
)

EPILOG = """\
examples:
  edgeface detect photo.jpg --out faces.jpg
  edgeface detect holiday/ --recursive --out drawn/ --json faces.json
  edgeface detect clip.mp4 --out faces.mp4 --csv faces.csv
  edgeface detect s3://bucket/photos --recursive --ray auto --parquet s3://bucket/faces
  edgeface detect --sample --out faces.png      a picture that comes with the extra 'samples'

One line is printed per input. A file that cannot be read is reported on stderr, the others go
on, and the exit code is 1. JSON Lines and CSV grow as faces are found and hold whole lines at any
moment; every other file appears whole or not at all.
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
    for name, output in OUTPUTS.items():
        kind = "DIR" if output.is_folder else "FILE"
        outputs.add_argument(f"--{name}", type=Path, metavar=kind, help=output.about)

    distributed = parser.add_argument_group(
        "archives",
        "Many files, on this machine or a cluster, with Ray Data (extra 'archive'). Inputs and DIR "
        "may be addresses such as s3://bucket/photos. Run again, it goes on where it stopped.",
    )
    distributed.add_argument(
        "--parquet", metavar="DIR", help="shards, one row per picture or frame"
    )
    distributed.add_argument(
        "--ray", metavar="local|ADDRESS", help="start Ray here, or join a cluster (auto, host:port)"
    )
    distributed.add_argument(
        "--workers", type=int, metavar="N", help="detectors at work (default: one per core)"
    )

    detector = add_frame_options(parser)
    detector.add_argument(
        "--score-threshold",
        type=float,
        default=DEFAULT_SCORE_THRESHOLD,
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
    detector.add_argument(
        "--min-face",
        type=int,
        metavar="PX",
        help="drop faces with a side below PX pixels; the larger, the faster",
    )
    detector.add_argument(
        "--roi", type=region, metavar="X,Y,W,H", help="look at that part of each picture only"
    )
    detector.add_argument(
        "--tile", action="store_true", help="look at tiles as well: small faces of large pictures"
    )


def region(text: str) -> tuple[int, int, int, int]:
    """Read what --roi says: 100,50,640,480."""
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected x,y,width,height in pixels, got {text!r}"
        ) from None
    return x, y, width, height


def run(args: argparse.Namespace) -> int:
    """Detect faces in every input; return 1 where one of them failed."""
    if not args.inputs and not args.sample:
        args.usage_error("expected an IMAGE, DIR or VIDEO, or --sample")
    if args.ray is not None or args.parquet is not None:
        check_archive(args)
        return archive.run(args, detector_options(args))
    sources = collect(args.inputs, recursive=args.recursive, sample=args.sample)
    drawings: list[Path] | list[None] = [None] * len(sources)
    if args.out is not None:
        into_folder = any(Path(name).is_dir() for name in args.inputs)
        drawings = plan_drawings(sources, args.out, into_folder=into_folder)
    paths = {name: path for name in OUTPUTS if (path := getattr(args, name)) is not None}
    check_outputs(paths, sources)

    with ExitStack() as stack:
        detector = stack.enter_context(open_detector(args))
        outputs = [stack.enter_context(OUTPUTS[name](path)) for name, path in paths.items()]
        failed = sum(
            not detect(detector, source, drawing, outputs)
            for source, drawing in zip(sources, drawings, strict=True)
        )
    if len(sources) > 1:
        print(f"{len(sources)} inputs, {failed} failed")
    return 1 if failed else 0


def check_archive(args: argparse.Namespace) -> None:
    """End with a usage error where the options of archives do not go together."""
    if args.ray is None or args.parquet is None:
        args.usage_error("expected --ray and --parquet together")
    for name in ("out", "sample", *OUTPUTS):
        if getattr(args, name):
            args.usage_error(f"expected no --{name} beside --ray, whose only output is --parquet")


def detector_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of ``Detector`` that the options describe."""
    return {name: getattr(args, name) for name in DETECTOR_OPTIONS}


def open_detector(args: argparse.Namespace) -> Detector:
    """Make the detector that the options describe."""
    from edgeface.detector import Detector

    return Detector(**detector_options(args))


def detect(
    detector: Detector, source: Source, drawing: Path | None, outputs: Sequence[Output]
) -> bool:
    """Detect in one input and print its line; report one that fails, and return False."""
    try:
        if source.is_video and source.path is not None:
            detect_video(detector, source, source.path, drawing, outputs)
        else:
            detect_picture(detector, source, drawing, outputs)
    except (InvalidImageError, InferenceError) as error:
        complain("error", f"{source.name}: {error}")
        for output in outputs:
            output.fail(source.name, error)
        return False
    return True


def detect_picture(
    detector: Detector, source: Source, drawing: Path | None, outputs: Sequence[Output]
) -> None:
    """Detect in one picture."""
    image = sample_picture() if source.path is None else read_image(source.path)
    faces = detector(image)
    if drawing is not None:
        write_picture(drawing, faces.draw(image))
    best = f", best {faces.scores[0]:.3f}" if len(faces) else ""
    print(f"{source.name}: {count(len(faces))}{best}, {milliseconds(detector):.1f} ms")
    height, width = image.shape[:2]
    for output in outputs:
        output.add(Shot(source.name, faces, width, height, relative=source.relative))


def detect_video(
    detector: Detector,
    source: Source,
    path: Path,
    drawing: Path | None,
    outputs: Sequence[Output],
) -> None:
    """Detect in every frame of a video."""
    name = source.name
    frames, most, best, spent = 0, 0, 0.0, 0.0
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
            height, width = image.shape[:2]
            shot = Shot(name, faces, width, height, frames, video.fps, source.relative)
            for output in outputs:
                output.add(shot)
            frames += 1
            most = max(most, len(faces))
            best = max(best, *faces.scores.tolist(), 0.0)
            spent += milliseconds(detector)
    if frames < video.frame_count:
        ended = f"ended after {frames} of the {video.frame_count} frames that it announces"
        complain("warning", f"{name}: {ended}; it may be cut off")
    found = f"at most {count(most)} in one, best {best:.3f}" if most else count(most)
    print(f"{name}: {frames} frames, {found}, {spent / frames:.1f} ms a frame")


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
