"""What the process itself holds, read from the kernel (Linux)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """What the process holds at one moment."""

    seconds: float
    rss_mib: float
    threads: int
    files: int


def sample(seconds: float) -> Sample:
    """Read the process's own figures; ``seconds`` is the moment's name."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    files = len(list(Path("/proc/self/fd").iterdir()))
    rss = int(status["VmRSS"].split()[0]) / 1024
    return Sample(seconds, rss, int(status["Threads"]), files)
