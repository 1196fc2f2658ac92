"""An archive on local Ray workers: one broken picture, the driver killed midway, and resumed.

    python benchmarks/archive.py PICTURES [--count 1000] [--workers 2]

Prints what each run did as a Markdown table, and fails where a picture is missing or found twice.
"""

from __future__ import annotations

import argparse
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from edgeface.archive.pipeline import SHARD_SIZE
from edgeface.hardware import host
from edgeface.imageio import PICTURES

POLL_SECONDS = 0.1


def prepare(pictures: Path, folder: Path, count: int) -> list[Path]:
    """Link that many pictures into the folder, and cut one of them short."""
    found = sorted(path for path in pictures.rglob("*") if path.suffix.lower() in PICTURES)
    if len(found) < count:
        sys.exit(f"expected {count} pictures in {pictures}, got {len(found)}")
    links = []
    for index, path in enumerate(found[:count]):
        link = folder / f"{index:06d}{path.suffix}"
        link.symlink_to(path.absolute())
        links.append(link)
    broken = links[count // 3]
    data = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(data[: len(data) // 2])
    return links


def start(photos: Path, faces: Path, workers: int) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    options = ["--ray", "local", "--workers", str(workers), "--parquet", str(faces)]
    command = [sys.executable, "-m", "edgeface", "detect", str(photos), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def shards(faces: Path) -> list[Path]:
    """Return the shards that are there."""
    return sorted(faces.glob("part-*.parquet"))


def work_seconds(written: list[Path]) -> float:
    """Return the time from the first of the shards to the last."""
    times = [path.stat().st_mtime for path in written]
    return max(times) - min(times)


def main() -> None:
    """Run, kill, resume, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, help="folder of pictures")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        photos, faces = Path(name, "photos"), Path(name, "faces")
        photos.mkdir()
        files = prepare(args.pictures, photos, args.count)
        total = -(-len(files) // SHARD_SIZE)

        begun = time.monotonic()
        driver = start(photos, faces, args.workers)
        while len(shards(faces)) < total // 2 and driver.poll() is None:
            time.sleep(POLL_SECONDS)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        killed_after = time.monotonic() - begun
        first = shards(faces)

        begun = time.monotonic()
        resumed = start(photos, faces, args.workers)
        printed, _ = resumed.communicate()
        resumed_for = time.monotonic() - begun
        second = [path for path in shards(faces) if path not in first]

        rows = pq.read_table(faces, columns=["file", "error"]).to_pylist()
        seen = Counter(row["file"] for row in rows)
        failed = [row for row in rows if row["error"]]
        print(f"{host().cpu}, {host().cores} cores, Python {platform.python_version()}\n")
        print("| run | shards | seconds, Ray's start included | pictures/s, first to last shard |")
        print("|---|---|---|---|")
        for title, seconds, written in (
            ("until the kill", killed_after, first),
            ("resumed", resumed_for, second),
        ):
            rate = (len(written) - 1) * SHARD_SIZE / (work_seconds(written) or float("inf"))
            print(f"| {title} | {len(written)} of {total} | {seconds:.1f} | {rate:.1f} |")
        print(f"\n{printed.strip()}\n")
        print(f"{len(rows)} rows, {len(seen)} pictures, {len(failed)} failed: {failed}")
        if len(rows) != len(files) or set(seen) != set(map(str, files)) or len(failed) != 1:
            sys.exit("expected each picture once, and one that failed")


if __name__ == "__main__":
    main()
