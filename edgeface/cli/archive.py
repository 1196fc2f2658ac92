"""``edgeface detect --ray``: an archive, with progress and a line per bad file."""

from __future__ import annotations

import argparse
import time
from typing import Any

from edgeface.cli import complain
from edgeface.cli.progress import track


def run(args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Detect in what is left of an archive; return 1 where a file failed, now or before."""
    from edgeface.archive import Archive

    archive = Archive(args.inputs, args.parquet, recursive=args.recursive, options=options)
    if archive.remaining < archive.total:
        print(f"{archive.total - archive.remaining} of {archive.total} inputs are done already")
    started, done = time.monotonic(), 0
    receipts = archive.run(args.ray, workers=args.workers)
    for receipt in track(receipts, args.parquet, total=len(archive.pending), unit="shard"):
        done += receipt.inputs
        for error in receipt.errors:
            complain("error", error)
    seconds = time.monotonic() - started
    summary = archive.summary()
    print(
        f"{summary.inputs} inputs, {summary.failed} failed, {summary.faces} faces in "
        f"{args.parquet}; {done} now, in {seconds:.1f} s, Ray's start included"
    )
    return 1 if summary.failed else 0
