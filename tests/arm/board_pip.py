"""pip as it runs on a 64-bit ARM board: ``python board_pip.py 3.11 36 install ...``.

The first two arguments are the board's Python and the minor version of its glibc 2. pip chooses
wheels by ``--platform``, but reads the markers of requirements ("platform_machine == 'aarch64'")
from the Python that runs it; so that Python is made to say what the board's would.
"""

from __future__ import annotations

import platform
import sys

from pip._internal.cli.main import main


def main_for_board(version: str, glibc: int, command: str, *arguments: str) -> int:
    """Run pip's command for the board."""
    platform.machine = lambda: "aarch64"
    platform.python_version = lambda: f"{version}.0"
    platform.python_version_tuple = lambda: (*version.split("."), "0")
    tags = ["manylinux2014_aarch64", *(f"manylinux_2_{n}_aarch64" for n in range(17, glibc + 1))]
    target = [f"--python-version={version}", "--implementation=cp", "--only-binary=:all:"]
    return main([command, *target, *(f"--platform={tag}" for tag in tags), *arguments])


if __name__ == "__main__":
    raise SystemExit(main_for_board(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
