"""Faces of every picture below a folder, in the format of your choice.

Run: python samples/batch_folder.py PHOTOS -o faces.jsonl
     python samples/batch_folder.py PHOTOS --format yolo -o labels/
"""

import argparse
import sys
from pathlib import Path

from edgeface import Detector
from edgeface.errors import InvalidImageError
from edgeface.imageio import read_image
from edgeface.outputs import OUTPUTS, Shot

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("faces.jsonl"))
    parser.add_argument("--format", choices=OUTPUTS, default="jsonl")
    args = parser.parse_args()

    paths = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    found = failed = 0
    with Detector() as detector, OUTPUTS[args.format](args.output) as output:
        for path in paths:
            try:
                image = read_image(path)
            except InvalidImageError as error:
                print(error, file=sys.stderr)
                output.fail(str(path), error)
                failed += 1
                continue
            faces = detector(image)
            height, width = image.shape[:2]
            relative = path.relative_to(args.folder)
            output.add(Shot(str(path), faces, width, height, relative=relative))
            found += len(faces)
    print(f"{len(paths)} pictures, {found} faces, {failed} failed: {args.output}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
