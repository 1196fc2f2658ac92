"""Where something was measured, and what else the machine did."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cv2

import edgeface
from edgeface.hardware import host
from edgeface.thermal import read_thermal

PACKAGES = ("numpy", "onnxruntime", "openvino", "ai-edge-litert", "tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class Machine:
    """A machine before a measurement.

    Attributes:
        cpu: name of the CPU, or of the board.
        cores: logical cores that the process may use.
        versions: of edgeface, Python and the libraries.
        load: processes that wanted a core over the last minute; None where the system tells none.
    """

    cpu: str
    cores: int
    versions: Mapping[str, str]
    load: float | None

    @classmethod
    def read(cls) -> Machine:
        """Describe this machine now."""
        versions = {"edgeface": edgeface.__version__, "Python": platform.python_version()}
        versions["OpenCV"] = cv2.__version__
        for package in PACKAGES:
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                continue
        this = host()
        load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
        return cls(this.board or this.cpu or this.machine, this.cores, versions, load)

    def __str__(self) -> str:
        """One line, with what holds the clock down now."""
        load = [] if self.load is None else [f"load {self.load:.1f} before the run"]
        versions = [f"{name} {number}" for name, number in self.versions.items()]
        slowed = read_thermal().slowed
        told = f" Slowed by: {'; '.join(slowed)}." if slowed else ""
        return f"{', '.join((f'{self.cpu}, {self.cores} cores', *load, *versions))}.{told}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "slowed": read_thermal().slowed}
