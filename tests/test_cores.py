from __future__ import annotations

from pathlib import Path

import pytest

from edgeface.cores import CoreType, arm_name, read_core_types

A53, A55, A72, A76, A78 = "0xd03", "0xd05", "0xd08", "0xd0b", "0xd41"
Core = tuple[str, int, int]


def board(root: Path, *cores: Core) -> Path:
    """Write the kernel's files of a CPU: part, highest MHz and capacity of each core; 0: none."""
    blocks = []
    for number, (part, mhz, capacity) in enumerate(cores):
        blocks.append(f"processor\t: {number}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n")
        folder = root / f"sys/devices/system/cpu/cpu{number}"
        (folder / "cpufreq").mkdir(parents=True)
        if mhz:
            (folder / "cpufreq/cpuinfo_max_freq").write_text(f"{mhz}000\n")
        if capacity:
            (folder / "cpu_capacity").write_text(f"{capacity}\n")
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text("\n".join([*blocks, "Model\t\t: a board\n"]))
    return root


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        pytest.param([(A76, 2400, 0)] * 4, [CoreType("Cortex-A76", 4, 2400)], id="Raspberry Pi 5"),
        pytest.param(
            [(A53, 1416, 485)] * 4 + [(A72, 1800, 1024)] * 2,
            [
                CoreType("Cortex-A72", 2, 1800, 1024),
                CoreType("Cortex-A53", 4, 1416, 485, big=False),
            ],
            id="RK3399",
        ),
        pytest.param(
            [(A53, 1416, 0)] * 4 + [(A72, 1800, 0)] * 2,
            [CoreType("Cortex-A72", 2, 1800), CoreType("Cortex-A53", 4, 1416, big=False)],
            id="RK3399 of an old kernel",
        ),
        pytest.param(
            [(A55, 1800, 414)] * 4 + [(A76, 2256, 1004)] * 2 + [(A76, 2304, 1024)] * 2,
            [
                CoreType("Cortex-A76", 2, 2304, 1024),
                CoreType("Cortex-A76", 2, 2256, 1004),
                CoreType("Cortex-A55", 4, 1800, 414, big=False),
            ],
            id="RK3588 with clusters of two bins",
        ),
        pytest.param(
            [(A55, 2000, 0)] * 4 + [(A76, 1800, 0)] * 2,
            [CoreType("Cortex-A76", 2, 1800), CoreType("Cortex-A55", 4, 2000, big=False)],
            id="little cores of a higher clock",
        ),
        pytest.param(
            [(A53, 1512, 0)] * 4 + [(A53, 1000, 0)] * 4,
            [CoreType("Cortex-A53", 4, 1512), CoreType("Cortex-A53", 4, 1000, big=False)],
            id="one part, two clocks",
        ),
        pytest.param(
            [(A78, 2700, 0)] + [(A78, 2400, 0)] * 3 + [(A55, 1900, 0)] * 4,
            [
                CoreType("Cortex-A78", 1, 2700),
                CoreType("Cortex-A78", 3, 2400),
                CoreType("Cortex-A55", 4, 1900, big=False),
            ],
            id="one core of a slightly higher clock",
        ),
        pytest.param(
            [(A55, 0, 0)] * 4 + [(A76, 0, 0)] * 4,
            [CoreType("Cortex-A76", 4), CoreType("Cortex-A55", 4, big=False)],
            id="no clocks to read",
        ),
    ],
)
def test_boards(cores: list[Core], expected: list[CoreType], tmp_path: Path) -> None:
    assert list(read_core_types(board(tmp_path, *cores))) == expected


def test_only_allowed_cores_count(tmp_path: Path) -> None:
    board(tmp_path, *[(A53, 1416, 485)] * 4, *[(A72, 1800, 1024)] * 2)
    assert read_core_types(tmp_path, {0, 1, 5}) == (
        CoreType("Cortex-A72", 1, 1800, 1024),
        CoreType("Cortex-A53", 2, 1416, 485, big=False),
    )
    assert read_core_types(tmp_path, {2}) == (CoreType("Cortex-A53", 1, 1416, 485),)


def test_hybrid_x86(tmp_path: Path) -> None:
    cpuinfo = "\n".join(f"processor\t: {n}\nmodel name\t: A Hybrid CPU\n" for n in range(6))
    for name, value in (
        ("proc/cpuinfo", cpuinfo),
        ("sys/devices/cpu_core/cpus", "0-1,4\n"),
        ("sys/devices/cpu_atom/cpus", "2-3,5\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value)
    assert read_core_types(tmp_path) == (CoreType("P-core", 3), CoreType("E-core", 3, big=False))


def test_no_files(tmp_path: Path) -> None:
    assert read_core_types(tmp_path) == ()


def test_an_unknown_part_keeps_its_number() -> None:
    assert arm_name({"cpu implementer": "0x41", "cpu part": "0xfff"}) == "0xfff"
    assert arm_name({"cpu implementer": "0x41", "cpu part": "0xD0B"}) == "Cortex-A76"
    assert arm_name({}) == ""
