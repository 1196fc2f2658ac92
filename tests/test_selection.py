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
from edgeface.runtimes.base import BACKENDS, CUDA_DEVICE, Backend
from edgeface.runtimes.probe import Verdict
from edgeface.selection import Candidate, rank
from edgeface.tuned import Measurement

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


def test_openvino_takes_fp32_where_it_computes_int8_in_float() -> None:
    int8 = Artifact("openvino", "int8", "b.onnx", "0")
    bundle = replace(BUNDLE, artifacts=(ONNX, int8))
    only = {"openvino": ALL["openvino"]}
    assert rank(X86, only, bundle)[0].artifact == int8
    assert rank(ARM, only, bundle)[0].artifact == ONNX
    assert rank(ARM, only, bundle, "int8")[0].artifact == int8


# What was measured on this machine.


def measurement(backend: str, ratio: float, **more: object) -> Measurement:
    known = {"precision": "fp32", "exact": False, "threads": 2, "input_size": 640, "version": "1.0"}
    return Measurement(backend, ms=5 * ratio, ratio=ratio, **{**known, **more})  # type: ignore[arg-type]


MEASURED = (
    measurement("tflite", 1.0),
    measurement("onnxruntime", 1.5, threads=4),
    measurement("openvino", 2.0),
)


def test_what_was_measured_as_fastest_goes_first() -> None:
    ranked = rank(X86, without(*NVIDIA), BUNDLE, input_size=640, measured=MEASURED)
    assert usable(ranked) == ["tflite", "onnxruntime", "openvino"]
    assert [one.threads for one in ranked[:3]] == [2, 4, 2]
    assert ranked[0].reason == "measured here, fp32, 2 threads: 5.0 ms, the fastest"
    assert ranked[1].reason == "measured here, fp32, 4 threads: 7.5 ms, 1.50 x the fastest"


def test_the_measured_precision_is_loaded_not_the_usual_one() -> None:
    bundle = replace(BUNDLE, artifacts=(ONNX, replace(ONNX, precision="int8")))
    [usual] = rank(X86, {"openvino": ALL["openvino"]}, bundle)
    [measured] = rank(X86, {"openvino": ALL["openvino"]}, bundle, measured=MEASURED)
    assert usual.artifact and usual.artifact.precision == "int8"
    assert measured.artifact and measured.artifact.precision == "fp32"


def test_int8_that_differs_is_not_taken() -> None:
    bundle = replace(BUNDLE, artifacts=(ONNX, replace(ONNX, precision="int8")))
    wrong = measurement("openvino", 0.5, precision="int8", problem="it differs from the reference")
    rows = (wrong, *MEASURED)
    [candidate] = rank(X86, {"openvino": ALL["openvino"]}, bundle, measured=rows)
    assert candidate.artifact and candidate.artifact.precision == "fp32"
    [candidate] = rank(X86, {"openvino": ALL["openvino"]}, bundle, measured=(wrong,))
    assert candidate.artifact and candidate.threads is None
    ranked = rank(X86, without(*NVIDIA, "tflite"), bundle, measured=(wrong,))
    assert usable(ranked) == ["onnxruntime", "openvino"], "behind all others"
    assert "it differs from the reference" in ranked[-1].reason


def test_an_uninstalled_winner_keeps_its_place_and_says_so() -> None:
    ranked = rank(X86, without(*NVIDIA, "tflite"), BUNDLE, input_size=640, measured=MEASURED)
    assert ranked[0].backend == "tflite" and ranked[0].artifact is None
    assert ranked[0].reason == (
        "tflite is broken; measured here, fp32, 2 threads: 5.0 ms, the fastest"
    )
    assert usable(ranked) == ["onnxruntime", "openvino"]


def test_another_version_must_be_measured_again() -> None:
    verdicts = without(*NVIDIA) | {"tflite": Verdict("tflite", True, "2.0", "")}
    ranked = rank(X86, verdicts, BUNDLE, input_size=640, measured=MEASURED)
    assert usable(ranked) == ["onnxruntime", "openvino", "tflite"]
    assert ranked[2].reason.endswith("measured with version 1.0: 'edgeface tune' would")


def test_what_was_not_measured_follows_in_the_usual_order() -> None:
    ranked = rank(X86, without(*NVIDIA), BUNDLE, input_size=640, measured=MEASURED[:1])
    assert usable(ranked) == ["tflite", "openvino", "onnxruntime"]
    assert ranked[1].reason.endswith("not measured here: 'edgeface tune' would")


def test_named_threads_choose_among_what_was_measured() -> None:
    rows = (measurement("openvino", 1.0, threads=4), measurement("tflite", 1.2, threads=1))
    for threads, expected in ((None, "openvino"), (4, "openvino"), (1, "tflite")):
        ranked = rank(X86, ALL, BUNDLE, input_size=640, threads=threads, measured=rows)
        assert usable(ranked)[0] == expected


def test_a_static_artifact_that_shrinks_stays_last_however_fast() -> None:
    static = replace(TFLITE, input_sizes=((640, 640),))
    bundle = replace(BUNDLE, artifacts=(ONNX, static))
    ranked = rank(X86, without(*NVIDIA), bundle, input_size=1280, measured=MEASURED)
    assert usable(ranked)[-1] == "tflite"


PLUGIN = Backend("acme", "acme.runtime", ("acme",), "", ("onnx",), distribution="acme 1.0")


def test_a_plugin_stands_behind_or_before_the_others() -> None:
    verdicts = without(*NVIDIA) | {"acme": Verdict("acme", True, "1", "")}
    ranked = rank(X86, verdicts, BUNDLE, backends={**BACKENDS, "acme": PLUGIN})
    assert usable(ranked)[-1] == "acme"
    assert [one.reason for one in ranked if one.backend == "acme"] == ["a plug-in of acme 1.0"]
    preferring = replace(PLUGIN, preference="an Acme NPU is here")
    ranked = rank(GPU, ALL | verdicts, BUNDLE, backends={**BACKENDS, "acme": preferring})
    assert usable(ranked)[0] == "acme"
    assert ranked[0].reason == "an Acme NPU is here"


def test_a_plugin_that_was_measured_as_fastest_goes_first() -> None:
    verdicts = without(*NVIDIA) | {"acme": Verdict("acme", True, "1", "")}
    rows = (measurement("acme", 1.0, version="1"), measurement("openvino", 3.0))
    ranked = rank(X86, verdicts, BUNDLE, measured=rows, backends={**BACKENDS, "acme": PLUGIN})
    assert usable(ranked)[:2] == ["acme", "openvino"]
