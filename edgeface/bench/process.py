"""What the process itself holds, read from the kernel (Linux)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeface.sysfiles import text

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Sample:
    """What the process holds at one moment."""

    seconds: float
    rss_mib: float
    threads: int
    files: int


def sample(seconds: float) -> Sample:
    """Read the process's own figures; ``seconds`` is the moment's name."""
    status = _status()
    files = len(list(Path("/proc/self/fd").iterdir()))
    return Sample(seconds, _mib(status["VmRSS"]), int(status["Threads"]), files)


def slope(samples: Sequence[Sample]) -> float:
    """Growth of the RSS in MiB an hour: the median over all pairs of samples.

    One step does not move it (Theil and Sen): the kernel puts huge pages of 2 MiB together.
    """
    hours = np.array([one.seconds / 3600 for one in samples])
    sizes = np.array([one.rss_mib for one in samples])
    earlier, later = np.triu_indices(len(hours), 1)
    return float(np.median((sizes[later] - sizes[earlier]) / (hours[later] - hours[earlier])))


def resident() -> tuple[float, float] | None:
    """Resident memory now and at its peak, in MiB; None where the kernel does not tell."""
    status = _status()
    if "VmRSS" not in status or "VmHWM" not in status:
        return None
    return _mib(status["VmRSS"]), _mib(status["VmHWM"])


def _status() -> dict[str, str]:
    lines = text(STATUS).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _mib(field: str) -> float:
    return int(field.split()[0]) / 1024
