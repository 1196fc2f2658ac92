from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeface.anchors import AnchorLevel, AnchorSpec
from edgeface.bundle import Artifact, Bundle
from edgeface.errors import (
    BackendUnavailableError,
    InvalidOptionError,
    MissingDependencyError,
    ModelNotFoundError,
)
from edgeface.hardware import Host
from edgeface.runtimes.base import BACKENDS, CUDA_DEVICE
from edgeface.runtimes.probe import Verdict
from edgeface.selection import Candidate, rank

X86 = Host("Linux", "x86_64", "", frozenset(), 4, "", False)
ARM = replace(X86, machine="aarch64")
GPU = replace(X86, nvidia=True)
OTHER = replace(X86, machine="riscv64")
ALL = {name: Verdict(name, True, "1.0", "") for name in BACKENDS}
NVIDIA = ("tensorrt", "tensorrt-rtx")
ON_CUDA = {"onnxruntime": Verdict("onnxruntime", True, "1.0", "", CUDA_DEVICE)}
ONNX = Artifact("onnx", "fp32", "a.onnx", "0")
TFLITE = Artifact("tflite", "fp32", "a.tflite", "0")
BUNDLE = Bundle("m", "m", Path(), AnchorSpec((AnchorLevel(32, (64.0,)),)), (ONNX, TFLITE))


def without(*names: str) -> dict[str, Verdict]:
    broken = {name: Verdict(name, False, None, f"{name} is broken") for name in names}
    return ALL | broken


def usable(candidates: list[Candidate]) -> list[str]:
    return [candidate.backend for candidate in candidates if candidate.artifact]


@pytest.mark.parametrize(
    ("host", "verdicts", "expected"),
    [
        (X86, without(*NVIDIA), ["openvino", "onnxruntime", "tflite"]),
        (ARM, without(*NVIDIA), ["tflite", "onnxruntime", "openvino"]),
        (OTHER, without(*NVIDIA), ["onnxruntime", "openvino", "tflite"]),
        (GPU, ALL, ["tensorrt", "tensorrt-rtx", "openvino", "onnxruntime", "tflite"]),
        (GPU, without("tensorrt"), ["tensorrt-rtx", "openvino", "onnxruntime", "tflite"]),
        (GPU, without(*NVIDIA) | ON_CUDA, ["onnxruntime", "openvino", "tflite"]),
        (GPU, ALL | ON_CUDA, [*NVIDIA, "onnxruntime", "openvino", "tflite"]),
        (X86, without(*NVIDIA, "openvino"), ["onnxruntime", "tflite"]),
        (ARM, without(*NVIDIA, "tflite", "onnxruntime"), ["openvino"]),
        (X86, without(*BACKENDS), []),
        (X86, {"tflite": ALL["tflite"]}, ["tflite"]),
    ],
)
def test_order(host: Host, verdicts: dict[str, Verdict], expected: list[str]) -> None:
    ranked = rank(host, verdicts, BUNDLE)
    assert usable(ranked) == expected
    assert {candidate.backend for candidate in ranked} == set(verdicts)
    assert all(candidate.reason for candidate in ranked)


def test_reasons_of_what_is_broken() -> None:
    ranked = rank(X86, without("openvino"), BUNDLE)
    assert ranked[0] == Candidate("openvino", None, "openvino is broken", MissingDependencyError)


def test_refusals() -> None:
    crashed = ALL | {"openvino": Verdict("openvino", False, "1.0", "SIGILL")}
    static = replace(BUNDLE, artifacts=(replace(TFLITE, input_sizes=((640, 640),)),))
    refusals = {
        candidate.backend: candidate.refusal
        for candidate in rank(X86, crashed, static, input_size=(320, 320))
    }
    assert refusals == {
        "openvino": BackendUnavailableError,
        "onnxruntime": ModelNotFoundError,
        "tensorrt": ModelNotFoundError,
        "tensorrt-rtx": ModelNotFoundError,
        "tflite": InvalidOptionError,
    }


def test_artifacts_fit_the_backend() -> None:
    ranked = {candidate.backend: candidate.artifact for candidate in rank(X86, ALL, BUNDLE)}
    assert ranked["openvino"] == ranked["onnxruntime"] == ONNX
    assert ranked["tflite"] == TFLITE


def test_auto_takes_the_fastest_precision_and_fp16_last() -> None:
    int8, half = replace(ONNX, precision="int8"), replace(ONNX, precision="fp16")
    best = {
        artifacts: rank(X86, ALL, replace(BUNDLE, artifacts=artifacts))[0].artifact
        for artifacts in ((half, ONNX, int8), (half, ONNX), (half,))
    }
    assert list(best.values()) == [int8, ONNX, half]


def test_auto_takes_fp16_before_fp32_where_the_file_decides_what_runs() -> None:
    half = replace(ONNX, precision="fp16")
    own = replace(half, format="tensorrt")
    for artifacts, taken in (((ONNX, half, own), own), ((ONNX, half), ONNX)):
        ranked = rank(GPU, ALL, replace(BUNDLE, artifacts=artifacts))
        found = {candidate.backend: candidate.artifact for candidate in ranked}
        assert found["tensorrt"] == found["tensorrt-rtx"] == taken
        assert found["onnxruntime"] == found["openvino"] == ONNX


def test_a_backend_takes_the_artifact_made_for_it_but_the_fastest_precision_first() -> None:
    int8 = replace(ONNX, precision="int8")
    own = {kind: replace(int8, format=kind) for kind in ("openvino", "tensorrt")}
    bundle = replace(BUNDLE, artifacts=(ONNX, int8, *own.values()))
    ranked = {candidate.backend: candidate.artifact for candidate in rank(GPU, ALL, bundle)}
    rtx = {"tensorrt-rtx": own["tensorrt"]}
    assert ranked == {**own, **rtx, "onnxruntime": int8, "tflite": None}

    bundle = replace(BUNDLE, artifacts=(int8, ONNX))
    ranked = {candidate.backend: candidate.artifact for candidate in rank(GPU, ALL, bundle)}
    assert ranked["openvino"] == ranked["onnxruntime"] == int8
    assert ranked["tensorrt"] == ranked["tensorrt-rtx"] == ONNX, "another's int8 does not parse"

    bundle = replace(BUNDLE, artifacts=(int8, replace(own["openvino"], precision="fp32")))
    ranked = {candidate.backend: candidate.artifact for candidate in rank(X86, ALL, bundle)}
    assert ranked["openvino"] == int8


def test_named_precision() -> None:
    bundle = replace(BUNDLE, artifacts=(ONNX, replace(TFLITE, precision="int8")))
    ranked = rank(X86, ALL, bundle, "int8")
    assert usable(ranked) == ["tflite"]
    assert ranked[0].reason == (
        "the model 'm' has no openvino or onnx artifact of precision int8; it has onnx fp32, "
        "tflite int8: choose among these"
    )
    with pytest.raises(InvalidOptionError, match="int4"):
        rank(X86, ALL, bundle, "int4")


def test_static_artifacts() -> None:
    static = replace(TFLITE, input_sizes=((640, 640), (640, 480)))
    bundle = replace(BUNDLE, artifacts=(ONNX, static))
    assert usable(rank(ARM, ALL, bundle, input_size=640))[0] == "tflite"
    assert usable(rank(ARM, ALL, bundle, input_size=(640, 480)))[0] == "tflite"
    for shrinking in (None, 1280):
        ranked = rank(ARM, ALL, bundle, input_size=shrinking)
        assert usable(ranked)[-1] == "tflite"
        assert "input_size 640x640, 640x480 only" in ranked[-1].reason
    assert "tflite" not in usable(rank(ARM, ALL, bundle, input_size=(320, 320)))


def test_a_legacy_package_runs_fp32_before_int8() -> None:
    int8 = Artifact("tflite", "int8", "b.tflite", "0")
    bundle = replace(BUNDLE, artifacts=(ONNX, int8, TFLITE))
    legacy = {"tflite": replace(ALL["tflite"], legacy=True)}
    assert rank(ARM, {"tflite": ALL["tflite"]}, bundle)[0].artifact == int8
    assert rank(ARM, legacy, bundle)[0].artifact == TFLITE
    assert rank(ARM, legacy, bundle, "int8")[0].artifact == int8
