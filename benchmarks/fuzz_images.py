"""Mutated picture files: every one is read or refused with a typed error, in bounded memory.

    python benchmarks/fuzz_images.py [--count 100000] [--seed 0] > table.md

Seeds are the portrait in docs/ as JPEG, PNG, WebP, GIF, BMP and TIFF in several encodings.
Mutations flip bits, overwrite, insert, remove and repeat runs of bytes, write boundary numbers, cut
files and join them; half of the PNGs get their checksums mended, so that decoding goes deeper. The
work runs in a process of its own, so that a crash is seen, and told with the number of the file.
Exit code 1: something crashed, hung, took too much memory or raised another error.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeface.errors import InvalidImageError
from edgeface.imageio import read_image

PORTRAIT = Path(__file__).parents[1] / "docs" / "astronaut.jpg"
MAX_PIXELS = 4_000_000
MAX_GROWTH_MIB = 200
HANG_SECONDS = 20.0
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@dataclass
class Tally:
    """What came of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    growth_mib: float = 0.0
    seconds: float = 0.0


def seeds() -> dict[str, list[bytes]]:
    """Small whole pictures by format."""
    portrait = cv2.imread(str(PORTRAIT))
    small, tiny = cv2.resize(portrait, (64, 48)), cv2.resize(portrait, (17, 23))
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    alpha = cv2.cvtColor(small, cv2.COLOR_BGR2BGRA)

    def encode(suffix: str, image: NDArray[np.uint8], *options: int) -> bytes:
        return bytes(cv2.imencode(suffix, image, list(options))[1])

    return {
        "JPEG": [
            encode(".jpg", small),
            encode(".jpg", grey),
            encode(".jpg", tiny, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
            encode(".jpg", small, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        ],
        "PNG": [encode(".png", small), encode(".png", alpha), encode(".png", tiny[..., :1])],
        "WebP": [
            encode(".webp", small, cv2.IMWRITE_WEBP_QUALITY, 60),
            encode(".webp", alpha, cv2.IMWRITE_WEBP_QUALITY, 101),
        ],
        "GIF": [encode(".gif", small), encode(".gif", tiny)],
        "BMP": [encode(".bmp", tiny)],
        "TIFF": [encode(".tiff", tiny), encode(".tiff", small, cv2.IMWRITE_TIFF_COMPRESSION, 5)],
    }


def mutate(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One to six mutations of a file."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 7))):
        if len(changed) < 8:
            break
        # Half of all mutations hit the header.
        reach = min(len(changed), 64) if rng.random() < 0.5 else len(changed)
        at, length = int(rng.integers(reach)), int(rng.integers(1, 32))
        kind = int(rng.integers(8))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at : at + length] = rng.bytes(length)
        elif kind == 2:
            changed[at:at] = rng.bytes(length)
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length] * int(rng.integers(1, 5))
        elif kind == 5:
            number = int(rng.choice(NUMBERS))
            width = int(rng.choice([1, 2, 4]))
            order = "big" if rng.random() < 0.5 else "little"
            changed[at : at + width] = (number % 256**width).to_bytes(width, order)
        elif kind == 6:
            del changed[at:]
        else:
            changed[at:] = other[int(rng.integers(len(other))) :]
    return bytes(changed)


def try_one(data: bytes) -> str:
    """Name the outcome of reading a file; raises what read_image must not raise."""
    try:
        image = read_image(data, max_pixels=MAX_PIXELS)
    except InvalidImageError:
        return "refused"
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert image.shape[0] * image.shape[1] <= MAX_PIXELS
    return "read"


def work(channel: Connection, seed: int, first: int, last: int) -> None:
    """Read the mutations ``first`` to ``last`` and send each number before and outcome after."""
    cv2.setNumThreads(0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    pool = [(name, data) for name, files in seeds().items() for data in files]
    for number in range(first, last):
        name, data = mutation(pool, seed, number)
        channel.send((number, name, None))
        channel.send((number, name, try_one(data)))
        if number % 100 == 0:
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            channel.send((number, "rss", str(rss)))
    channel.send((last, "done", None))


def mutation(pool: list[tuple[str, bytes]], seed: int, number: int) -> tuple[str, bytes]:
    """Mutation ``number`` of a run: its format and its bytes."""
    rng = np.random.default_rng([seed, number])
    name, data = pool[int(rng.integers(len(pool)))]
    other = pool[int(rng.integers(len(pool)))][1]
    changed = mutate(data, other, rng)
    return name, mend(changed) if name == "PNG" and rng.random() < 0.5 else changed


def mend(data: bytes) -> bytes:
    """Give every whole chunk of a PNG its right checksum."""
    mended, position = bytearray(data), 8
    while position + 12 <= len(mended):
        end = position + 8 + int.from_bytes(mended[position : position + 4], "big")
        if end + 4 > len(mended):
            break
        mended[end : end + 4] = zlib.crc32(mended[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return bytes(mended)


def fuzz(count: int, seed: int) -> Tally:
    """Read ``count`` mutated files, going on after a crash with the next."""
    tally, started = Tally(), time.monotonic()
    context = multiprocessing.get_context("spawn")
    number, base = 0, None
    while number < count:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(sender, seed, number, count))
        process.start()
        sender.close()
        current, name = number, "?"
        try:
            while True:
                if not receiver.poll(HANG_SECONDS):
                    tally.failures.append(f"mutation {current} ({name}): hangs")
                    break
                current, name, outcome = receiver.recv()
                if name == "done":
                    break
                if name == "rss":
                    base = float(outcome) if base is None else base
                    tally.growth_mib = max(tally.growth_mib, float(outcome) - base)
                elif outcome is not None:
                    tally.outcomes[f"{name} {outcome}"] += 1
        except EOFError:
            process.join()
            tally.failures.append(f"mutation {current} ({name}): exit code {process.exitcode}")
        process.kill()
        process.join()
        number = current + 1
    if tally.growth_mib > MAX_GROWTH_MIB:
        tally.failures.append(f"memory grew by {tally.growth_mib:.0f} MiB")
    tally.seconds = time.monotonic() - started
    return tally


def table(tally: Tally) -> str:
    """The Markdown table."""
    lines = ["| format | files | read | refused |", "|---|---|---|---|"]
    for name in seeds():
        read, refused = tally.outcomes[f"{name} read"], tally.outcomes[f"{name} refused"]
        lines.append(f"| {name} | {read + refused} | {read} | {refused} |")
    total = sum(tally.outcomes.values())
    lines += [
        "",
        f"{total} files in {tally.seconds:.0f} s, memory grew by {tally.growth_mib:.0f} MiB at "
        f"most; {'; '.join(tally.failures) or 'no crash, no hang, no other error'}.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Mutated picture files, as a Markdown table.")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tally = fuzz(args.count, args.seed)
    print(table(tally))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
