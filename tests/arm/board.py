"""A 64-bit ARM board without the board: Debian for arm64 under qemu's user emulation.

    python tests/arm/board.py build ROOT edgeface-*.whl
    python tests/arm/board.py run ROOT raspberry-pi-5 python3 -m edgeface doctor

``build`` unpacks Debian from this machine's apt sources and installs the wheel, with what it asks
for on a board, from the package index. ``run`` enters it as the board would be: its own /proc and
/sys, and arm64 programs that start arm64 programs. The kernel hands those to qemu through a
binfmt_misc of a user namespace of its own (Linux 6.7 and later), which ends with the command:
nothing is registered on this machine, and edgeface runs as installed, subprocesses and all.

Needs root, mmdebstrap and qemu-user-static. Emulation proves function, not speed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = (
    "python3-minimal", "python3.11", "libpython3.11-stdlib", "libstdc++6", "libgcc-s1", "libgomp1",
    "libc6", "zlib1g", "libexpat1", "libssl3", "libffi8", "liblzma5", "libbz2-1.0",
    "libsqlite3-0", "libuuid1",
)  # fmt: skip
# What a Raspberry Pi OS 12 has, too.
SUITE, PYTHON, GLIBC = "bookworm", "3.11", 36
SITE = f"usr/local/lib/python{PYTHON}/dist-packages"
EMULATOR = "qemu-aarch64-static"
# Magic and mask of a 64-bit little-endian ARM executable; F: qemu is opened now, outside the root.
BINFMT = (
    r":aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{qemu}:F"
)
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
REGISTER = """
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf %s "$2" > /proc/sys/fs/binfmt_misc/register
mount -t proc proc "$1/proc"
"""
ENTER = f"""set -e
{REGISTER}
mount --bind "$1/boards/$3/cpuinfo" "$1/proc/cpuinfo"
mount --bind "$1/boards/$3/sys" "$1/sys"
mount --rbind /dev "$1/dev"
root=$1
shift 3
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Board:
    """What the kernel of a board tells: four equal cores.

    Attributes:
        model: name in the device tree.
        cpu: qemu's name of the core.
        midr: the core's identification register.
        mhz: highest clock.
        features: flags in /proc/cpuinfo.
    """

    model: str
    cpu: str
    midr: int
    mhz: int
    features: str


_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
BOARDS = {
    "raspberry-pi-5": Board(
        "Raspberry Pi 5 Model B Rev 1.0",
        "cortex-a76",
        0x414FD0B1,
        2400,
        f"{_V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp",
    ),
    "raspberry-pi-3": Board(
        "Raspberry Pi 3 Model B Plus Rev 1.3", "cortex-a53", 0x410FD034, 1400, _V8
    ),
}


def why_not() -> str | None:
    """Say why no board can be emulated here, or return None."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "needs Linux on x86_64"
    if os.geteuid():
        return "needs root"
    for command in ("mmdebstrap", EMULATOR, "unshare"):
        if not shutil.which(command):
            return f"needs the command {command}: apt install mmdebstrap qemu-user-static"
    attempt = subprocess.run(
        [*NAMESPACES, "sh", "-ec", REGISTER, "sh", "", _binfmt()], capture_output=True, text=True
    )
    if attempt.returncode:
        return f"needs binfmt_misc in a user namespace (Linux 6.7): {attempt.stderr.strip()}"
    return None


def build(root: Path, wheel: Path, extras: str = "tflite,onnxruntime,openvino") -> None:
    """Make the root file system of a board with edgeface installed, and the facts of all boards."""
    sources = [
        path
        for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*"))
        if path.is_file() and SUITE in path.read_text()
    ]
    debian = ["mmdebstrap", "--quiet", "--architectures=arm64", "--variant=extract"]
    include = f"--include={','.join(PACKAGES)}"
    subprocess.run([*debian, include, SUITE, str(root), *map(str, sources)], check=True)
    install(root / SITE, f"{wheel}[{extras}]")
    for folder in ("proc", "sys", "dev", "root"):
        (root / folder).mkdir(exist_ok=True)
    for name, board in BOARDS.items():
        write_facts(root / "boards" / name, board)


def install(target: Path, *requirements: str) -> None:
    """Install into a folder what pip would install on the board."""
    pip = [sys.executable, str(Path(__file__).with_name("board_pip.py")), PYTHON, str(GLIBC)]
    options = ["install", "-qq", "--no-compile", "--no-warn-conflicts", "--target", str(target)]
    subprocess.run([*pip, *options, *requirements], check=True)


def write_facts(folder: Path, board: Board) -> None:
    """Write /proc/cpuinfo and /sys as the board's kernel shows them."""
    count, part = 4, board.midr >> 4 & 0xFFF
    cpu = folder / "sys/devices/system/cpu"
    files = {
        folder / "sys/firmware/devicetree/base/model": f"{board.model}\0",
        folder / "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        folder / "sys/class/thermal/thermal_zone0/temp": "52100\n",
        cpu / "cpufreq/policy0/cpuinfo_max_freq": f"{board.mhz}000\n",
        cpu / "cpufreq/policy0/scaling_max_freq": f"{board.mhz}000\n",
        cpu / "cpufreq/policy0/scaling_governor": "ondemand\n",
        **{cpu / name: f"0-{count - 1}\n" for name in ("possible", "present", "online")},
    }
    blocks = []
    for number in range(count):
        blocks.append(
            f"processor\t: {number}\nFeatures\t: {board.features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU part\t: {part:#x}\n"
        )
        one, all_cores = f"{1 << number:x}\n", f"{(1 << count) - 1:x}\n"
        core = cpu / f"cpu{number}"
        files |= {
            core / "regs/identification/midr_el1": f"{board.midr:#018x}\n",
            core / "cpufreq/cpuinfo_max_freq": f"{board.mhz}000\n",
            core / "topology/core_id": f"{number}\n",
            core / "topology/physical_package_id": "0\n",
            core / "topology/thread_siblings": one,
            core / "topology/core_cpus": one,
            core / "topology/core_cpus_list": f"{number}\n",
            core / "topology/thread_siblings_list": f"{number}\n",
            core / "topology/core_siblings": all_cores,
            core / "topology/core_siblings_list": f"0-{count - 1}\n",
            core / "topology/package_cpus": all_cores,
            core / "topology/package_cpus_list": f"0-{count - 1}\n",
        }
    files[folder / "cpuinfo"] = "\n".join([*blocks, f"Model\t\t: {board.model}\n"])
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def run(
    root: Path, name: str, command: Sequence[str], instructions: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command on a board and return what it printed.

    Args:
        root: what ``build`` made.
        name: of the board.
        command: with its arguments.
        instructions: file on the board for the instructions that qemu translates; "": none.
    """
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": f"/boards/{name}",
        "LANG": "C.UTF-8",
        "QEMU_CPU": BOARDS[name].cpu,
    }
    if instructions:
        environment |= {"QEMU_LOG": "in_asm", "QEMU_LOG_FILENAME": instructions}
    return subprocess.run(
        [*NAMESPACES, "sh", "-c", ENTER, "sh", str(root), _binfmt(), name, *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def translated(log: Path) -> Iterator[int]:
    """The instructions that qemu translated, as numbers: each once per block of code."""
    with log.open() as lines:
        for line in lines:
            address, _, rest = line.partition(":")
            if address.startswith("0x"):
                yield int(rest.split()[0], 16)


def _binfmt() -> str:
    return BINFMT.format(qemu=shutil.which(EMULATOR))


def main() -> int:
    """Build a board, or run a command on it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="action", required=True)
    building = commands.add_parser("build", help="make the root file system")
    building.add_argument("root", type=Path)
    building.add_argument("wheel", type=Path)
    running = commands.add_parser("run", help="run a command on a board")
    running.add_argument("root", type=Path)
    running.add_argument("board", choices=list(BOARDS))
    running.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if problem := why_not():
        parser.exit(1, f"no board here: {problem}\n")
    if args.action == "build":
        build(args.root.absolute(), args.wheel.absolute())
        return 0
    done = run(args.root.absolute(), args.board, args.command)
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
