"""``edgeface blur``: faces made unrecognisable in pictures, folders and videos."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.cli import complain
from edgeface.cli.detect import count
from edgeface.cli.drawing import DEFAULT_FPS, video_writer, write_picture
from edgeface.cli.files import Source, collect, plan_drawings
from edgeface.cli.options import add_frame_options
from edgeface.cli.progress import track
from edgeface.errors import InferenceError, InvalidImageError
from edgeface.imageio import read_image
from edgeface.privacy import KINDS, blur_faces, blur_video, check_blur
from edgeface.video import Video

if TYPE_CHECKING:
    from edgeface.detector import Detector

EPILOG = """\
examples:
  edgeface blur street.mp4 -o safe.mp4
  edgeface blur holiday/ --recursive -o safe/ --kind solid

In a video a face stays blurred for --hold seconds after it was last found, and a few frames before
it is first found. Look through the result: no detector finds every face. Sound is kept where
ffmpeg is installed. An interrupted video holds the frames so far. Pictures lose their metadata.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "blur",
        help="make faces unrecognisable in pictures, folders and videos",
        description="Make faces unrecognisable in pictures, folders and videos.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="IMAGE|DIR|VIDEO", help="what to blur")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="a file for one input, a folder for several; videos become .mp4",
    )
    parser.add_argument("--recursive", action="store_true", help="enter folders within folders")

    blur = parser.add_argument_group("blur")
    blur.add_argument(
        "--kind",
        choices=KINDS,
        default="gaussian",
        help="solid leaves nothing of a face (default: %(default)s)",
    )
    blur.add_argument(
        "--margin",
        type=float,
        default=0.2,
        metavar="M",
        help="widening of each side of a box, in box sizes (default: %(default)s)",
    )
    blur.add_argument(
        "--hold",
        type=float,
        default=1.0,
        metavar="S",
        help="seconds that a face which is no longer found stays blurred (default: %(default)s)",
    )

    detector = add_frame_options(parser)
    detector.add_argument(
        "--tile",
        action="store_true",
        help="look at overlapping tiles as well: small faces in large pictures, slowly",
    )
    detector.add_argument(
        "--score-threshold",
        type=float,
        default=0.3,
        metavar="S",
        help="lower blurs more, also what is no face (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Blur every input; return 1 where one of them failed."""
    from edgeface.detector import Detector

    check_blur(args.kind, args.margin)
    sources = collect(args.inputs, recursive=args.recursive, sample=False)
    into_folder = any(Path(name).is_dir() for name in args.inputs)
    targets = plan_drawings(sources, args.out, into_folder=into_folder)
    with Detector(
        args.backend,
        model=args.model,
        precision=args.precision,
        input_size=args.input_size,
        score_threshold=args.score_threshold,
        threads=args.threads,
        tile=args.tile,
    ) as detector:
        failed = sum(
            not blur(detector, source, target, args)
            for source, target in zip(sources, targets, strict=True)
        )
    if len(sources) > 1:
        print(f"{len(sources)} inputs, {failed} failed")
    return 1 if failed else 0


def blur(detector: Detector, source: Source, target: Path, args: argparse.Namespace) -> bool:
    """Blur one input and print its line; report one that fails, and return False."""
    try:
        if source.is_video:
            frames = blur_clip(detector, source, target, args)
            print(f"{source.name}: {frames} frames blurred")
        else:
            image = read_image(source.name)
            faces = detector(image)
            write_picture(target, blur_faces(image, faces, kind=args.kind, margin=args.margin))
            print(f"{source.name}: {count(len(faces))} blurred")
    except (InvalidImageError, InferenceError) as error:
        complain("error", f"{source.name}: {error}")
        return False
    return True


def blur_clip(detector: Detector, source: Source, target: Path, args: argparse.Namespace) -> int:
    """Blur a video and return the number of its frames."""
    written = 0
    with Video(source.name) as video, writer_with_sound(video, source.name, target) as append:
        frames = track(video, source.name, total=video.frame_count or None, unit="frame")
        options = {"kind": args.kind, "margin": args.margin, "hold": args.hold}
        for image in blur_video(frames, detector, fps=video.fps or DEFAULT_FPS, **options):
            append(image)
            written += 1
    return written


@contextmanager
def writer_with_sound(
    video: Video, origin: str, target: Path
) -> Iterator[Callable[[NDArray[np.uint8]], object]]:
    """Give a function that appends a frame to a video that ends with its origin's sound."""
    silent = target.with_name(f".{target.stem}.{os.getpid()}.silent.mp4")
    try:
        size = (video.width, video.height)
        with video_writer(silent, video.fps, *size, keep_partial=True) as append:
            yield append
    finally:
        if silent.exists():
            if not origin.lower().endswith(".gif"):
                add_sound(silent, origin)
            silent.replace(target)


def add_sound(path: Path, origin: str) -> None:
    """Give an MP4 file the sound of another video, where ffmpeg is installed; else warn."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        complain("warning", f"{origin}: its sound, if any, is dropped; install ffmpeg to keep it")
        return
    capture = cv2.VideoCapture(str(path))
    seconds = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    mixed = path.with_name(f"{path.name}.sound.mp4")
    inputs = [ffmpeg, "-y", "-v", "error", "-nostdin", "-i", str(path), "-i", f"file:{origin}"]
    tracks = ["-map", "0:v", "-map", "1:a?", "-map_metadata", "0", "-t", f"{seconds:.3f}"]
    try:
        for codec in ("copy", "aac"):
            command = [*inputs, *tracks, "-c:v", "copy", "-c:a", codec, str(mixed)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                mixed.replace(path)
                return
        complain("warning", f"{origin}: its sound is dropped, ffmpeg says: {done.stderr}")
    finally:
        mixed.unlink(missing_ok=True)
