"""The compiler: keeps the source, and gives it back as the code."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class nvrtcResult(IntEnum):
    NVRTC_SUCCESS = 0
    NVRTC_ERROR_INVALID_OPTION = 5


options: list[bytes] = []
fail: dict[str, str] = {}


def _result(name: str) -> nvrtcResult:
    return nvrtcResult[fail.get(name, "NVRTC_SUCCESS")]


def nvrtcCreateProgram(source: bytes, name: bytes, count: int, headers: Any, names: Any) -> Any:
    return _result("nvrtcCreateProgram"), source


def nvrtcCompileProgram(program: bytes, count: int, given: list[bytes]) -> Any:
    assert count == len(given)
    options[:] = given
    return (_result("nvrtcCompileProgram"),)


def nvrtcGetPTXSize(program: bytes) -> Any:
    return _result("nvrtcGetPTXSize"), 4


def nvrtcGetPTX(program: bytes, code: bytes) -> Any:
    assert len(code) == 4
    return (_result("nvrtcGetPTX"),)
