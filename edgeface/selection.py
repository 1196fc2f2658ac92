"""Which backend fits this machine, and why: a pure function of facts, verdicts and the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeface.bundle import Artifact, Bundle, check_precision
from edgeface.errors import (
    BackendUnavailableError,
    EdgeFaceError,
    InvalidOptionError,
    MissingDependencyError,
    ModelNotFoundError,
)
from edgeface.hardware import Host
from edgeface.runtimes.base import BACKENDS, CUDA_DEVICE
from edgeface.runtimes.probe import Verdict


@dataclass(frozen=True)
class Candidate:
    """A backend with the artifact that it would load.

    Attributes:
        backend: its name.
        artifact: what it would load; None where it cannot be used.
        reason: why it stands at its rank, or why it cannot be used.
        refusal: the error that asking for it by name raises; None where it can be used.
    """

    backend: str
    artifact: Artifact | None
    reason: str
    refusal: type[EdgeFaceError] | None = None


def rank(
    host: Host,
    verdicts: Mapping[str, Verdict],
    bundle: Bundle,
    precision: str = "auto",
    input_size: int | tuple[int, int] | None = None,
) -> list[Candidate]:
    """Rank the backends that have a verdict.

    Args:
        host: facts about the machine.
        verdicts: what probing each backend said, by name.
        bundle: the model.
        precision: "auto" or a precision of the artifact.
        input_size: as ``Detector`` takes it; a static artifact that would lose resolution goes
            behind all others, one that cannot take a fixed size is not usable.

    Returns:
        Candidates in order of preference; the first with an artifact is the one to take.

    Raises:
        InvalidOptionError: unknown precision.
    """
    check_precision(precision)
    ranked, last = [], []
    for name, merit in _preference(host, verdicts).items():
        if name not in verdicts:
            continue
        verdict = verdicts[name]
        precisions = _precisions(verdict) if precision == "auto" else (precision,)
        artifact = BACKENDS[name].artifact(bundle, precisions)
        if not verdict.available:
            refusal = BackendUnavailableError if verdict.version else MissingDependencyError
            ranked.append(Candidate(name, None, verdict.reason, refusal))
        elif artifact is None:
            reason = _lacks(bundle, name, precisions)
            ranked.append(Candidate(name, None, reason, ModelNotFoundError))
        elif _excludes(artifact, input_size):
            ranked.append(Candidate(name, None, _static(artifact), InvalidOptionError))
        elif _shrinks(artifact, input_size):
            last.append(Candidate(name, artifact, _static(artifact)))
        else:
            ranked.append(Candidate(name, artifact, merit))
    return ranked + last


def _precisions(verdict: Verdict) -> tuple[str, ...]:
    """What "auto" takes, the fastest first: on a legacy package int8 is the slowest."""
    order = BACKENDS[verdict.name].precisions
    return tuple(sorted(order, key="int8".__eq__)) if verdict.legacy else order


def _preference(host: Host, verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """Every backend, best first, with what speaks for its place."""
    order = {}
    if host.nvidia:
        order["tensorrt"] = "an NVIDIA GPU is here"
        order["tensorrt-rtx"] = "an NVIDIA GPU is here, and TensorRT proper goes first"
        if "onnxruntime" in verdicts and verdicts["onnxruntime"].device == CUDA_DEVICE:
            order["onnxruntime"] = "its CUDA provider runs on the NVIDIA GPU"
    if host.is_x86:
        order["openvino"] = "usually the fastest on x86 CPUs"
    if host.is_arm:
        order["tflite"] = "usually the fastest on ARM CPUs"
    order.setdefault("onnxruntime", "runs on any machine")
    rest = {
        "openvino": "usually slower than the others on this CPU",
        "tflite": "usually slower than the others on this CPU",
        "tensorrt": "no NVIDIA driver was found",
        "tensorrt-rtx": "no NVIDIA driver was found",
    }
    return order | {name: reason for name, reason in rest.items() if name not in order}


def _lacks(bundle: Bundle, name: str, precisions: tuple[str, ...]) -> str:
    wanted = " or ".join(BACKENDS[name].formats)
    has = [f"{artifact.format} {artifact.precision}" for artifact in bundle.artifacts]
    kinds = " or ".join(precisions)
    return (
        f"the model '{bundle.name}' has no {wanted} artifact of precision {kinds}; "
        f"it has {', '.join(has) or 'none'}: choose among these"
    )


def _excludes(artifact: Artifact, input_size: int | tuple[int, int] | None) -> bool:
    if not artifact.input_sizes or not isinstance(input_size, tuple):
        return False
    return input_size not in artifact.input_sizes


def _shrinks(artifact: Artifact, input_size: int | tuple[int, int] | None) -> bool:
    if not artifact.input_sizes or isinstance(input_size, tuple):
        return False
    return input_size is None or max(map(max, artifact.input_sizes)) < input_size


def _static(artifact: Artifact) -> str:
    sizes = ", ".join(f"{width}x{height}" for width, height in artifact.input_sizes)
    return f"its {artifact.format} artifact takes input_size {sizes} only"
