"""Detect in a folder or bucket of any size, on this machine or a Ray cluster; resume when killed.

Run: pip install ".[archive]" && python samples/archive_ray.py PHOTOS FACES
     python samples/archive_ray.py s3://bucket/photos s3://bucket/faces --ray auto
"""

import argparse
import sys

from edgeface.archive import Archive


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="a folder or an address")
    parser.add_argument("faces", help="folder or address of the Parquet files")
    parser.add_argument("--ray", default="local", metavar="ADDRESS", help="a running cluster")
    parser.add_argument("--shard-size", type=int, default=64, metavar="N", help="files of a shard")
    args = parser.parse_args()

    archive = Archive([args.photos], args.faces, recursive=True, shard_size=args.shard_size)
    print(f"{archive.total} files, {archive.remaining} to go", flush=True)
    for receipt in archive.run(args.ray):
        print(f"shard {receipt.shard}: {receipt.inputs} files, {receipt.faces} faces", flush=True)
        for error in receipt.errors:
            print(error, file=sys.stderr)

    summary = archive.summary()
    print(f"{summary.inputs} files, {summary.failed} failed, {summary.faces} faces")
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
