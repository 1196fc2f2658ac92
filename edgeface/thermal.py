"""What slows the machine just now: heat, limits of the clock, the governor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeface.sysfiles import integer, text

_CPU_SENSORS = ("cpu", "soc", "x86_pkg", "coretemp", "k10temp", "bigcore", "littlecore")
# Bits of the Raspberry Pi firmware's get_throttled, as its documentation lists them.
_RASPBERRY_PI = {
    0: "under-voltage",
    1: "the firmware caps the clock",
    2: "the firmware throttles",
    3: "at the soft temperature limit",
    16: "under-voltage since the start",
    17: "the firmware capped the clock since the start",
    18: "the firmware throttled since the start",
    19: "at the soft temperature limit since the start",
}


@dataclass(frozen=True)
class Thermal:
    """What slows the machine at this moment.

    Attributes:
        celsius: of the hottest CPU sensor, None where there is none to read.
        slowed: what holds the clock down, empty where nothing does or nothing tells.
        governor: how the kernel picks the clock ("ondemand"), empty where unknown.
    """

    celsius: float | None
    slowed: tuple[str, ...]
    governor: str


def read_thermal(root: Path = Path("/")) -> Thermal:
    """Read what the kernel tells below a file system root."""
    degrees = _degrees(root)
    return Thermal(
        celsius=max(degrees) if degrees else None,
        slowed=(*_cooling(root), *_caps(root), *_raspberry_pi(root)),
        governor=", ".join(_governors(root)),
    )


def _degrees(root: Path) -> list[float]:
    """Degrees of the CPU's sensors, or of all where none names the CPU."""
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*"))
    sensors = [(text(zone / "type"), zone / "temp") for zone in zones]
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        sensors += [(text(chip / "name"), path) for path in sorted(chip.glob("temp*_input"))]
    of_cpu = [path for name, path in sensors if name.lower().startswith(_CPU_SENSORS)]
    paths = of_cpu or [path for _, path in sensors]
    return [value / 1000 for path in paths if (value := integer(path)) > 0]


def _cooling(root: Path) -> list[str]:
    """CPU cooling devices that are at work; the kernel cools a CPU by slowing it."""
    found = []
    for device in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind, state = text(device / "type").strip(), integer(device / "cur_state")
        if "cpufreq" in kind and state:
            found.append(f"{kind} cools in step {state} of {integer(device / 'max_state')}")
    return found


def _caps(root: Path) -> list[str]:
    """Clocks that may not rise as far as the hardware could."""
    found = []
    for policy in _policies(root):
        highest = integer(policy / "cpuinfo_max_freq")
        allowed = integer(policy / "scaling_max_freq")
        if 0 < allowed < highest:
            cores = text(policy / "related_cpus").strip() or policy.name
            found.append(f"cores {cores} capped at {allowed // 1000} of {highest // 1000} MHz")
    return found


def _raspberry_pi(root: Path) -> list[str]:
    told = text(root / "sys/devices/platform/soc/soc:firmware/get_throttled").strip()
    try:
        bits = int(told, 16)
    except ValueError:
        bits = 0
    alarms = root.glob("sys/class/hwmon/hwmon*/in0_lcrit_alarm")
    low = any(integer(path) and "rpi_volt" in text(path.with_name("name")) for path in alarms)
    found = [meaning for bit, meaning in _RASPBERRY_PI.items() if bits >> bit & 1]
    return [*found, *["under-voltage alarm"] * low]


def _governors(root: Path) -> list[str]:
    names = (text(policy / "scaling_governor").strip() for policy in _policies(root))
    return sorted({name for name in names if name})


def _policies(root: Path) -> list[Path]:
    return sorted(root.glob("sys/devices/system/cpu/cpufreq/policy*"))
