"""The CPU's cores by kind: what they are called, how fast they are, and which are the big ones."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from edgeface.sysfiles import integer, text

# /proc/cpuinfo's implementer and part, as Arm's reference manuals list them.
_ARM, _NVIDIA, _QUALCOMM = "0x41", "0x4e", "0x51"
_NAMES = {
    (_ARM, "0xb76"): "ARM1176",
    (_ARM, "0xc07"): "Cortex-A7",
    (_ARM, "0xc08"): "Cortex-A8",
    (_ARM, "0xc09"): "Cortex-A9",
    (_ARM, "0xc0e"): "Cortex-A17",
    (_ARM, "0xc0f"): "Cortex-A15",
    (_ARM, "0xd03"): "Cortex-A53",
    (_ARM, "0xd04"): "Cortex-A35",
    (_ARM, "0xd05"): "Cortex-A55",
    (_ARM, "0xd07"): "Cortex-A57",
    (_ARM, "0xd08"): "Cortex-A72",
    (_ARM, "0xd09"): "Cortex-A73",
    (_ARM, "0xd0a"): "Cortex-A75",
    (_ARM, "0xd0b"): "Cortex-A76",
    (_ARM, "0xd0c"): "Neoverse-N1",
    (_ARM, "0xd0d"): "Cortex-A77",
    (_ARM, "0xd40"): "Neoverse-V1",
    (_ARM, "0xd41"): "Cortex-A78",
    (_ARM, "0xd42"): "Cortex-A78AE",
    (_ARM, "0xd44"): "Cortex-X1",
    (_ARM, "0xd46"): "Cortex-A510",
    (_ARM, "0xd47"): "Cortex-A710",
    (_ARM, "0xd48"): "Cortex-X2",
    (_ARM, "0xd49"): "Neoverse-N2",
    (_ARM, "0xd4b"): "Cortex-A78C",
    (_ARM, "0xd4d"): "Cortex-A715",
    (_ARM, "0xd4e"): "Cortex-X3",
    (_ARM, "0xd4f"): "Neoverse-V2",
    (_ARM, "0xd80"): "Cortex-A520",
    (_ARM, "0xd81"): "Cortex-A720",
    (_ARM, "0xd82"): "Cortex-X4",
    (_NVIDIA, "0x003"): "Denver 2",
    (_NVIDIA, "0x004"): "Carmel",
    (_QUALCOMM, "0x802"): "Kryo 3xx Gold",
    (_QUALCOMM, "0x803"): "Kryo 3xx Silver",
    (_QUALCOMM, "0x804"): "Kryo 4xx Gold",
    (_QUALCOMM, "0x805"): "Kryo 4xx Silver",
}
_LITTLE = {
    "Cortex-A7", "Cortex-A35", "Cortex-A53", "Cortex-A55", "Cortex-A510", "Cortex-A520",
    "Kryo 3xx Silver", "Kryo 4xx Silver", "E-core",
}  # fmt: skip
# A core with less than this part of the fastest core's speed is not one of the big ones.
_BIG = 0.75


@dataclass(frozen=True)
class CoreType:
    """Cores of one kind that this process may use.

    Attributes:
        name: "Cortex-A76", "P-core", ...; the CPU's name where all are alike, empty if unknown.
        count: how many of them, logical ones.
        max_mhz: highest clock, 0 where unknown.
        capacity: the kernel's measure of speed, 1024 for the fastest core; 0 where unknown.
        big: they are the fast ones; all are where the CPU has one kind.
    """

    name: str
    count: int
    max_mhz: int = 0
    capacity: int = 0
    big: bool = True


def read_core_types(root: Path, allowed: Collection[int] | None = None) -> tuple[CoreType, ...]:
    """Read the kinds of cores below a file system root, the fastest first.

    Args:
        root: of the file system.
        allowed: numbers of the logical cores that count; None: all.
    """
    counts: dict[tuple[str, int, int], int] = {}
    hybrid = _hybrid_names(root)
    for number, block in _processors(text(root / "proc/cpuinfo")).items():
        if allowed is not None and number not in allowed:
            continue
        folder = root / f"sys/devices/system/cpu/cpu{number}"
        mhz = integer(folder / "cpufreq/cpuinfo_max_freq") // 1000
        kind = hybrid.get(number) or arm_name(block) or block.get("model name", "")
        key = (kind, mhz, integer(folder / "cpu_capacity"))
        counts[key] = counts.get(key, 0) + 1
    found = [CoreType(name, n, mhz, capacity) for (name, mhz, capacity), n in counts.items()]
    found.sort(key=_speed, reverse=True)
    return tuple(replace(one, big=_is_big(one, found)) for one in found)


def arm_name(fields: dict[str, str]) -> str:
    """Name an ARM core by its lines in /proc/cpuinfo; empty where there are none."""
    part = fields.get("cpu part", "").lower()
    return _NAMES.get((fields.get("cpu implementer", "").lower(), part), part)


def _speed(core: CoreType) -> tuple[int, bool, int]:
    return core.capacity, core.name not in _LITTLE, core.max_mhz


def _is_big(core: CoreType, fastest_first: list[CoreType]) -> bool:
    """Whether a kind is about as fast as the fastest; clocks of different kinds say nothing."""
    top = fastest_first[0]
    if all(one.capacity for one in fastest_first):
        return core.capacity >= _BIG * top.capacity
    return core.name == top.name and core.max_mhz >= _BIG * top.max_mhz


def _processors(cpuinfo: str) -> dict[int, dict[str, str]]:
    """Fields of /proc/cpuinfo by the processor's number, keys in lower case."""
    found: dict[int, dict[str, str]] = {}
    for block in cpuinfo.split("\n\n"):
        lines = (line.partition(":") for line in block.splitlines())
        fields = {key.strip().lower(): value.strip() for key, _, value in lines}
        if fields.get("processor", "").isdecimal():
            found[int(fields["processor"])] = fields
    return found


def _hybrid_names(root: Path) -> dict[int, str]:
    """Which logical cores of a hybrid x86 are performance cores and which efficient ones."""
    return {
        number: name
        for name, kind in (("P-core", "cpu_core"), ("E-core", "cpu_atom"))
        for number in _numbers(text(root / f"sys/devices/{kind}/cpus"))
    }


def _numbers(listed: str) -> list[int]:
    """The kernel's list format: "0-3,8" is 0, 1, 2, 3 and 8."""
    found: list[int] = []
    for span in listed.strip().split(","):
        first, _, last = span.partition("-")
        if first.isdecimal():
            found += range(int(first), int(last if last.isdecimal() else first) + 1)
    return found
