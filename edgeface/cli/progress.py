"""One progress display for all long work: tqdm where installed, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")

TERMINAL_SECONDS = 0.2
LOG_SECONDS = 10.0
CLEAR_LINE = "\r\033[K"


def track(
    items: Iterable[Item], description: str, *, total: int | None = None, unit: str = "item"
) -> Iterator[Item]:
    """Yield the items and show on stderr how many are done.

    A terminal gets a bar that vanishes at the end; a file or pipe gets a plain line every ten
    seconds.

    Args:
        items: what to go through.
        description: what is being done, in a word or two.
        total: number of items; taken from ``len(items)`` where that is known.
        unit: name of one item.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if not sys.stderr.isatty():
        return _plain(items, description, total, unit, terminal=False)
    try:
        from tqdm import tqdm
    except ImportError:
        return _plain(items, description, total, unit, terminal=True)
    return iter(tqdm(items, description, total, leave=False, unit=unit, dynamic_ncols=True))


def _plain(
    items: Iterable[Item], description: str, total: int | None, unit: str, *, terminal: bool
) -> Iterator[Item]:
    before, after, interval = (
        (CLEAR_LINE, "", TERMINAL_SECONDS) if terminal else ("", "\n", LOG_SECONDS)
    )
    goal = f"/{total}" if total is not None else ""
    start = shown = time.monotonic()
    try:
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - shown >= interval:
                shown = now
                status = f"{description}: {done}{goal} {unit}s, {done / (now - start):.1f}/s"
                print(f"{before}{status}{after}", end="", file=sys.stderr, flush=True)
    finally:
        if terminal:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
