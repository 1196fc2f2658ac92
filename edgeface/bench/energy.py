"""Energy by RAPL, the counters of x86 packages that Linux shows below ``powercap``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edgeface.sysfiles import integer, text

ROOT = Path("/sys/class/powercap")
SECONDS = 2.0


def readable(root: Path = ROOT) -> bool:
    """Whether some package tells its energy to this process."""
    return bool(_packages(root))


def joules_per_call(
    call: Callable[[], object], seconds: float = SECONDS, root: Path = ROOT
) -> float | None:
    """Energy of the packages while a call runs over and over, per call.

    Everything that runs on the packages is in it, the idle machine too.

    Args:
        call: what to run.
        seconds: how long.
        root: where the counters lie.

    Returns:
        Joules; None where no counter can be read.
    """
    packages = _packages(root)
    if not packages:
        return None
    before = [integer(package / "energy_uj") for package in packages]
    calls, end = 0, time.monotonic() + seconds
    while calls == 0 or time.monotonic() < end:
        call()
        calls += 1
    used = 0
    for package, start in zip(packages, before, strict=True):
        spent = integer(package / "energy_uj") - start
        used += spent if spent >= 0 else spent + integer(package / "max_energy_range_uj")
    return used / 1e6 / calls


def _packages(root: Path) -> list[Path]:
    """Zones such as ``intel-rapl:0``; AMD's go by the same name. Their parts have two colons."""
    zones = sorted(root.glob("intel-rapl:*"))
    return [
        zone for zone in zones if zone.name.count(":") == 1 and text(zone / "energy_uj").strip()
    ]
