"""Faces of every picture in a folder, one JSON object per line; broken pictures are recorded.

Run: python samples/batch_folder.py PHOTOS -o faces.jsonl
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgeface import Detector, EdgeFaceError
from edgeface.imageio import read_image

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("faces.jsonl"))
    parser.add_argument("--readers", type=int, default=2, help="threads that decode pictures")
    args = parser.parse_args()

    paths = sorted(p for p in args.folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    found = failed = 0
    with Detector() as detector, args.output.open("w") as lines:

        def record(path: Path) -> dict:
            try:
                faces = detector(read_image(path))
            except EdgeFaceError as error:
                return {"file": str(path), "error": str(error)}
            return {"file": str(path), **faces.to_dict()}

        with ThreadPoolExecutor(args.readers) as readers:
            for row in readers.map(record, paths):
                lines.write(json.dumps(row) + "\n")
                found += len(row.get("faces", []))
                failed += "error" in row
    print(f"{len(paths)} pictures, {found} faces, {failed} failed: {args.output}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
