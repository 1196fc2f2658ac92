from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from edgeface.hardware import cpu_signature, host, read_host, usable_cores

X86 = """\
processor\t: 0
model name\t: Example CPU @ 2.00GHz
flags\t\t: fpu sse2 avx2 avx512_vnni

processor\t: 1
model name\t: Another CPU
flags\t\t: fpu
"""
ARM = """\
processor\t: 0
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b

Model\t\t: Raspberry Pi 5
"""


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def test_x86(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    found = read_host(write(tmp_path, **{"proc/cpuinfo": X86}))
    assert (found.machine, found.is_x86, found.is_arm) == ("x86_64", True, False)
    assert found.cpu == "Example CPU @ 2.00GHz"
    assert found.flags == {"fpu", "sse2", "avx2", "avx512_vnni"}
    assert found.arithmetic == {"avx2": True, "avx512": False, "vnni": True, "amx": False}
    assert (found.cores, found.board, found.nvidia) == (8, "", False)


def test_arm_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    files = {"proc/cpuinfo": ARM, "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}
    found = read_host(write(tmp_path, **files))
    assert (found.machine, found.is_x86, found.is_arm) == ("aarch64", False, True)
    assert found.flags == {"fp", "asimd", "asimddp"}
    assert found.cpu == "Cortex-A76"
    assert found.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert found.arithmetic == {"neon": True, "fp16": False, "dotprod": True, "i8mm": False}


@pytest.mark.parametrize(
    ("files", "board"),
    [
        ({"sys/firmware/devicetree/base/model": "Firefly-RK3399\0"}, "Firefly-RK3399"),
        ({"proc/cpuinfo": ARM}, "Raspberry Pi 5"),
        ({"proc/cpuinfo": X86 + "model\t: 2\n"}, ""),
    ],
)
def test_board(files: dict[str, str], board: str, tmp_path: Path) -> None:
    assert read_host(write(tmp_path, **files)).board == board


def test_threads_are_the_big_cores_within_the_quota(tmp_path: Path) -> None:
    """An RK3399: four little cores and two big ones."""
    parts = ["0xd03"] * 4 + ["0xd08"] * 2
    blocks = (
        f"processor\t: {number}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n"
        for number, part in enumerate(parts)
    )
    write(tmp_path, **{"proc/cpuinfo": "\n".join(blocks)})
    found = read_host(tmp_path)
    assert (found.big_cores, found.threads, found.quota) == (2, 2, None)
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}
    found = read_host(write(tmp_path, **files))
    assert (found.big_cores, found.threads, found.quota) == (1, 1, 0.5)


def test_threads_are_at_most_four(tmp_path: Path) -> None:
    assert (read_host(tmp_path).big_cores, read_host(tmp_path).threads) == (8, 4)


def test_unknown_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    found = read_host(tmp_path)
    assert (found.is_x86, found.is_arm, found.flags, found.cpu) == (False, False, set(), "")


@pytest.mark.parametrize("name", ["proc/driver/nvidia/version", "etc/nv_tegra_release"])
def test_nvidia(name: str, tmp_path: Path) -> None:
    assert read_host(write(tmp_path, **{name: ""})).nvidia


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, 8),
        (
            {
                "proc/self/cgroup": "0::/app/worker\n",
                "sys/fs/cgroup/app/worker/cpu.max": "max 100000\n",
                "sys/fs/cgroup/app/cpu.max": "300000 100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "5:cpuset:/\n4:cpu,cpuacct:/box\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "150000",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "50000",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8,
        ),
    ],
)
def test_usable_cores(files: dict[str, str], cores: int, tmp_path: Path) -> None:
    assert usable_cores(write(tmp_path, **files)) == cores


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert usable_cores(tmp_path) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1


def test_this_machine() -> None:
    assert host() is host()
    assert host().cores >= 1
    assert host().machine in cpu_signature()


def test_no_heavy_import() -> None:
    code = "import edgeface.hardware, sys; print('numpy' in sys.modules, 'cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
