from __future__ import annotations

from pathlib import Path

import pytest

from edgeface.thermal import Thermal, read_thermal

ZONE = "sys/class/thermal/thermal_zone"
HWMON = "sys/class/hwmon/hwmon"
RPI_VOLT = f"{HWMON}2"
ALARM = f"{RPI_VOLT}/in0_lcrit_alarm"
FAN = "sys/class/thermal/cooling_device0"
COOLER = "sys/class/thermal/cooling_device1"
POLICY = "sys/devices/system/cpu/cpufreq/policy"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


def read(root: Path, files: dict[str, str]) -> Thermal:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return read_thermal(root)


def test_nothing_to_read(tmp_path: Path) -> None:
    assert read_thermal(tmp_path) == Thermal(None, (), "")


@pytest.mark.parametrize(
    ("files", "celsius"),
    [
        ({f"{ZONE}0/type": "cpu-thermal", f"{ZONE}0/temp": "61234"}, 61.234),
        (
            {
                f"{ZONE}0/type": "soc-thermal",
                f"{ZONE}0/temp": "55000",
                f"{ZONE}1/type": "bigcore0-thermal",
                f"{ZONE}1/temp": "71000",
                f"{ZONE}2/type": "gpu-thermal",
                f"{ZONE}2/temp": "90000",
            },
            71.0,
        ),
        ({f"{ZONE}0/type": "acpitz", f"{ZONE}0/temp": "27800"}, 27.8),
        ({f"{HWMON}0/name": "k10temp", f"{HWMON}0/temp1_input": "48500"}, 48.5),
        ({f"{ZONE}0/type": "cpu-thermal", f"{ZONE}0/temp": "no"}, None),
        ({f"{ZONE}0/type": "cpu-thermal", f"{ZONE}0/temp": "-274000"}, None),
    ],
)
def test_temperature(files: dict[str, str], celsius: float | None, tmp_path: Path) -> None:
    assert read(tmp_path, files).celsius == celsius


@pytest.mark.parametrize(
    ("files", "slowed"),
    [
        ({FIRMWARE: "0"}, ()),
        ({FIRMWARE: "50005"}, (
            "under-voltage", "the firmware throttles", "under-voltage since the start",
            "the firmware throttled since the start",
        )),
        ({FIRMWARE: "?"}, ()),
        ({f"{RPI_VOLT}/name": "rpi_volt", ALARM: "1"}, ("under-voltage alarm",)),
        ({f"{RPI_VOLT}/name": "rpi_volt", ALARM: "0"}, ()),
        ({f"{FAN}/type": "pwm-fan", f"{FAN}/cur_state": "3"}, ()),
        (
            {
                f"{COOLER}/type": "cpufreq-cpu4",
                f"{COOLER}/cur_state": "2",
                f"{COOLER}/max_state": "8",
            },
            ("cpufreq-cpu4 cools in step 2 of 8",),
        ),
        (
            {
                f"{POLICY}4/cpuinfo_max_freq": "1800000",
                f"{POLICY}4/scaling_max_freq": "1200000",
                f"{POLICY}4/related_cpus": "4 5",
                f"{POLICY}0/cpuinfo_max_freq": "1416000",
                f"{POLICY}0/scaling_max_freq": "1416000",
            },
            ("cores 4 5 capped at 1200 of 1800 MHz",),
        ),
    ],
)  # fmt: skip
def test_what_slows(files: dict[str, str], slowed: tuple[str, ...], tmp_path: Path) -> None:
    assert read(tmp_path, files).slowed == slowed


def test_governors(tmp_path: Path) -> None:
    files = {
        f"{POLICY}{n}/scaling_governor": name for n, name in ((0, "ondemand"), (4, "ondemand"))
    }
    assert read(tmp_path, files).governor == "ondemand"
    files = {f"{POLICY}4/scaling_governor": "performance"}
    assert read(tmp_path, files).governor == "ondemand, performance"
