"""What the process itself holds, read from the kernel (Linux)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
