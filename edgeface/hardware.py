"""Facts about this machine that choose a backend, read from the kernel's files: no heavy import."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_NVIDIA_FILES = (
    "proc/driver/nvidia/version",
    "etc/nv_tegra_release",
    "dev/nvidiactl",
    "dev/nvhost-gpu",
    "usr/lib/wsl/lib/libcuda.so.1",
)
_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "armv8l": "aarch64"}


@dataclass(frozen=True)
class Host:
    """A machine.

    Attributes:
        system: "Linux", "Darwin", "Windows".
        machine: architecture: "x86_64", "aarch64", "armv7l", ...
        cpu: name of the CPU, empty where unknown.
        flags: the CPU's features as the kernel names them ("avx2", "asimddp").
        cores: logical cores that this process may use, by affinity and cgroup quota.
        board: name of a single-board computer, empty elsewhere.
        nvidia: an NVIDIA GPU's driver is there.
    """

    system: str
    machine: str
    cpu: str
    flags: frozenset[str]
    cores: int
    board: str
    nvidia: bool

    @property
    def is_x86(self) -> bool:
        """Whether the CPU is an x86 of 32 or 64 bits."""
        return self.machine in ("x86_64", "i386", "i686")

    @property
    def is_arm(self) -> bool:
        """Whether the CPU is an ARM of 32 or 64 bits."""
        return self.machine.startswith(("aarch64", "arm"))


@lru_cache(maxsize=1)
def host() -> Host:
    """Return the facts about this machine, read once."""
    return read_host(Path("/"))


def read_host(root: Path) -> Host:
    """Read the facts below a file system root."""
    cpuinfo = _fields(_text(root / "proc/cpuinfo"))
    machine = platform.machine().lower()
    return Host(
        system=platform.system(),
        machine=_MACHINES.get(machine, machine),
        cpu=cpuinfo.get("model name") or cpuinfo.get("cpu model") or cpuinfo.get("cpu part", ""),
        flags=frozenset((cpuinfo.get("flags") or cpuinfo.get("features", "")).split()),
        cores=usable_cores(root),
        board=_text(root / "proc/device-tree/model").strip("\0\n "),
        nvidia=any((root / name).exists() for name in _NVIDIA_FILES),
    )


def cpu_signature() -> str:
    """Return a key for caches of what depends on the CPU: architecture, name and features."""
    this = host()
    return " ".join((this.system, this.machine, this.cpu, *sorted(this.flags)))


def usable_cores(root: Path = Path("/")) -> int:
    """Logical cores that this process may use: the smaller of affinity and cgroup quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = min(_cgroup_quotas(root), default=math.inf)
    return max(1, int(min(cores or 1, math.ceil(quota) if quota < math.inf else math.inf)))


def _cgroup_quotas(root: Path) -> list[float]:
    """Quotas in cores of this process's cgroup and those above it, of either version."""
    quotas = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        if number == "0":
            mounts = [root / "sys/fs/cgroup"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup/cpu,cpuacct"]
        else:
            continue
        inner = Path(path.lstrip("/"))
        for mount in mounts:
            quotas += [_quota(mount / group) for group in (inner, *inner.parents)]
    return [quota for quota in quotas if quota > 0]


def _quota(group: Path) -> float:
    """Cores that a cgroup may use; 0 where it sets no limit."""
    maximum, period = ([*_text(group / "cpu.max").split(), "", ""])[:2]
    if not maximum:
        maximum = _text(group / "cpu.cfs_quota_us").strip()
        period = _text(group / "cpu.cfs_period_us").strip()
    try:
        return float(maximum) / float(period)
    except (ValueError, ZeroDivisionError):
        return 0.0


def _fields(cpuinfo: str) -> dict[str, str]:
    """Key-value lines of /proc/cpuinfo, keys in lower case; the first processor counts."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
