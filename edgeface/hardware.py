"""Facts about this machine that choose a backend, read from the kernel's files: no heavy import."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edgeface.cores import CoreType, arm_name, read_core_types
from edgeface.sysfiles import text

_NVIDIA_VERSIONS = ("proc/driver/nvidia/version", "etc/nv_tegra_release")
_NVIDIA_FILES = (
    *_NVIDIA_VERSIONS,
    "dev/nvidiactl",
    "dev/nvhost-gpu",
    "usr/lib/wsl/lib/libcuda.so.1",
)
# What decides the speed of a net, and the kernel's names for it.
_ARITHMETIC = {
    "neon": ("asimd", "neon"),
    "fp16": ("asimdhp",),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "amx": ("amx_int8",),
}
_ARM_ARITHMETIC = ("neon", "fp16", "dotprod", "i8mm")
# More threads than a phone or board has big cores slow a small model down.
_MOST_THREADS = 4
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
        core_types: the kinds of cores that its affinity allows, the fastest first.
        quota: cores' worth of time that its cgroup grants, None without a limit.
    """

    system: str
    machine: str
    cpu: str
    flags: frozenset[str]
    cores: int
    board: str
    nvidia: bool
    core_types: tuple[CoreType, ...] = ()
    quota: float | None = None

    @property
    def big_cores(self) -> int:
        """Logical cores that this process may use and that are not little ones."""
        big = sum(kind.count for kind in self.core_types if kind.big)
        return min(big or self.cores, self.cores)

    @property
    def threads(self) -> int:
        """Worker threads where the user names no number: the big cores, at most 4."""
        return min(self.big_cores, _MOST_THREADS)

    @property
    def arithmetic(self) -> dict[str, bool]:
        """The instructions that make nets fast, and whether the CPU has them."""
        return {
            name: not self.flags.isdisjoint(flags)
            for name, flags in _ARITHMETIC.items()
            if self.is_arm == (name in _ARM_ARITHMETIC)
        }

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
    cpuinfo = _fields(text(root / "proc/cpuinfo"))
    machine = platform.machine().lower()
    return Host(
        system=platform.system(),
        machine=_MACHINES.get(machine, machine),
        cpu=cpuinfo.get("model name") or cpuinfo.get("cpu model") or arm_name(cpuinfo),
        flags=frozenset((cpuinfo.get("flags") or cpuinfo.get("features", "")).split()),
        cores=usable_cores(root),
        board=_board(root, cpuinfo),
        nvidia=any((root / name).exists() for name in _NVIDIA_FILES),
        core_types=read_core_types(root, _affinity()),
        quota=_quota(root),
    )


def cpu_signature() -> str:
    """Return a key for caches of what depends on the CPU: architecture, name and features."""
    this = host()
    return " ".join((this.system, this.machine, this.cpu, *sorted(this.flags)))


def nvidia_driver(root: Path = Path("/")) -> str:
    """Return a key for caches of what depends on the NVIDIA driver; "" where there is none."""
    here = [name for name in _NVIDIA_FILES if (root / name).exists()]
    versions = [text(root / name).strip() for name in _NVIDIA_VERSIONS]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    return "\n".join([*here, *versions, f"GPUs shown: {shown}"]) if here else ""


def usable_cores(root: Path = Path("/")) -> int:
    """Logical cores that this process may use: the smaller of affinity and cgroup quota."""
    allowed = _affinity()
    cores = (os.cpu_count() if allowed is None else len(allowed)) or 1
    return max(1, min(cores, math.ceil(_quota(root) or cores)))


def _affinity() -> set[int] | None:
    """Numbers of the logical cores that this process may run on, None where all may."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _board(root: Path, cpuinfo: Mapping[str, str]) -> str:
    """The device tree's name of the machine; a Raspberry Pi says it in /proc/cpuinfo as well."""
    names = (
        text(root / "proc/device-tree/model"),
        text(root / "sys/firmware/devicetree/base/model"),
        cpuinfo.get("model", "") if "cpu part" in cpuinfo else "",
    )
    return next((name for name in (name.strip("\0\n ") for name in names) if name), "")


def _quota(root: Path) -> float | None:
    """Cores' worth of time that this process's cgroup grants, None without a limit."""
    return min(_cgroup_quotas(root), default=None)


def _cgroup_quotas(root: Path) -> list[float]:
    """Quotas in cores of this process's cgroup and those above it, of either version."""
    quotas = []
    for line in text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        if number == "0":
            mounts = [root / "sys/fs/cgroup"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup/cpu,cpuacct"]
        else:
            continue
        inner = Path(path.lstrip("/"))
        for mount in mounts:
            quotas += [_group_quota(mount / group) for group in (inner, *inner.parents)]
    return [quota for quota in quotas if quota > 0]


def _group_quota(group: Path) -> float:
    """Cores that a cgroup may use; 0 where it sets no limit."""
    maximum, period = ([*text(group / "cpu.max").split(), "", ""])[:2]
    if not maximum:
        maximum = text(group / "cpu.cfs_quota_us").strip()
        period = text(group / "cpu.cfs_period_us").strip()
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
