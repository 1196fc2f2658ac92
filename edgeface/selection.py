"""Which backend fits this machine, and why: a pure function of facts, verdicts and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from edgeface.runtimes.base import BACKENDS, CUDA_DEVICE, Backend
from edgeface.runtimes.probe import Verdict
from edgeface.tuned import Measurement, fastest

# Where candidates stand: by their speed, by what is usual, behind all others.
_MEASURED, _USUAL, _LAST = range(3)


@dataclass(frozen=True)
class Candidate:
    """A backend with the artifact that it would load.

    Attributes:
        backend: its name.
        artifact: what it would load; None where it cannot be used.
        reason: why it stands at its rank, or why it cannot be used.
        refusal: the error that asking for it by name raises; None where it can be used.
        measured: how fast it was here with that artifact, where ``edgeface tune`` measured it.
    """

    backend: str
    artifact: Artifact | None
    reason: str
    refusal: type[EdgeFaceError] | None = None
    measured: Measurement | None = None

    @property
    def threads(self) -> int | None:
        """As many worker threads as were measured to be the fastest; None where not measured."""
        return self.measured.threads if self.measured and self.measured.works else None


def rank(
    host: Host,
    verdicts: Mapping[str, Verdict],
    bundle: Bundle,
    precision: str = "auto",
    input_size: int | tuple[int, int] | None = None,
    threads: int | None = None,
    measured: Sequence[Measurement] = (),
    backends: Mapping[str, Backend] = BACKENDS,
) -> list[Candidate]:
    """Rank the backends that have a verdict.

    What was measured on this machine goes first, by its speed; what was not follows by what is
    usual on machines like this one.

    Args:
        host: facts about the machine.
        verdicts: what probing each backend said, by name.
        bundle: the model.
        precision: "auto" or a precision of the artifact.
        input_size: as ``Detector`` takes it; a static artifact that would lose resolution goes
            behind all others, one that cannot take a fixed size is not usable.
        threads: worker threads, or None for any number.
        measured: what ``edgeface tune`` measured of the model on this machine.
        backends: descriptions of those that have a verdict, and perhaps of more.

    Returns:
        Candidates in order of preference; the first with an artifact is the one to take.

    Raises:
        InvalidOptionError: unknown precision.
    """
    check_precision(precision)
    timed = fastest(_current(measured, verdicts), precision, input_size, threads)
    ranked = []
    for name, merit in _preference(host, verdicts, backends).items():
        if name not in verdicts:
            continue
        place = next((i for i, one in enumerate(timed) if one.backend == name), len(timed))
        best = timed[place] if place < len(timed) else None
        if measured:
            merit = _told(best) if best else f"{merit}; {_unmeasured(name, measured)}"
        candidate = _candidate(
            host, backends[name], verdicts[name], bundle, precision, input_size, merit, best
        )
        shrinks = candidate.artifact is not None and _shrinks(candidate.artifact, input_size)
        behind = shrinks or (best is not None and not best.works)
        group = _LAST if behind else _MEASURED if best else _USUAL
        ranked.append((group, place, candidate))
    return [candidate for *_, candidate in sorted(ranked, key=lambda one: one[:2])]


def uninstalled(
    measured: Sequence[Measurement], backends: Mapping[str, Backend]
) -> list[Candidate]:
    """Say of plug-ins that were measured here that they are no longer installed."""
    fastest_first = sorted(measured, key=lambda one: (not one.works, one.ratio or 0))
    gone = {one.backend: one for one in reversed(fastest_first) if one.backend not in backends}
    return [
        Candidate(
            name, None, f"its plug-in is no longer installed; {_told(one)}",
            MissingDependencyError, one,
        )
        for name, one in gone.items()
    ]  # fmt: skip


def _candidate(
    host: Host,
    backend: Backend,
    verdict: Verdict,
    bundle: Bundle,
    precision: str,
    input_size: int | tuple[int, int] | None,
    merit: str,
    best: Measurement | None,
) -> Candidate:
    """Find what a backend would load, or why it cannot be used."""
    name = backend.name
    precisions = _precisions(host, verdict, backend) if precision == "auto" else (precision,)
    if best and best.works:
        precisions = (best.precision,)
    artifact = backend.artifact(bundle, precisions)
    if not verdict.available:
        refusal = BackendUnavailableError if verdict.version else MissingDependencyError
        reason = f"{verdict.reason}; {_told(best)}" if best else verdict.reason
        return Candidate(name, None, reason, refusal, best)
    if artifact is None:
        return Candidate(name, None, _lacks(bundle, backend, precisions), ModelNotFoundError)
    if _excludes(artifact, input_size):
        return Candidate(name, None, _static(artifact), InvalidOptionError)
    reason = _static(artifact) if _shrinks(artifact, input_size) else merit
    return Candidate(name, artifact, reason, measured=best)


def _current(measured: Sequence[Measurement], verdicts: Mapping[str, Verdict]) -> list[Measurement]:
    """Leave out what another version of a backend's library was measured at."""
    return [
        one
        for one in measured
        if one.backend in verdicts
        and (not verdicts[one.backend].available or verdicts[one.backend].version == one.version)
    ]


def _told(best: Measurement) -> str:
    return f"measured here, {best.name}: {best}"


def _unmeasured(name: str, measured: Sequence[Measurement]) -> str:
    versions = dict.fromkeys(str(one.version) for one in measured if one.backend == name)
    told = f"measured with version {', '.join(versions)}" if versions else "not measured here"
    return f"{told}: 'edgeface tune' would"


def _precisions(host: Host, verdict: Verdict, backend: Backend) -> tuple[str, ...]:
    """What "auto" takes, the fastest first.

    int8 is the slowest on a legacy package, and no gain where OpenVINO computes it in float32.
    """
    order = backend.precisions
    emulated = backend.name == "openvino" and not host.is_x86
    return tuple(sorted(order, key="int8".__eq__)) if verdict.legacy or emulated else order


def _preference(
    host: Host, verdicts: Mapping[str, Verdict], backends: Mapping[str, Backend]
) -> dict[str, str]:
    """Every backend, the usually best first, with what speaks for its place."""
    plugins = {name: one for name, one in backends.items() if name not in BACKENDS}
    order = {name: one.preference for name, one in plugins.items() if one.preference}
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
        **{name: f"a plug-in of {one.distribution}" for name, one in plugins.items()},
    }
    return order | {name: reason for name, reason in rest.items() if name not in order}


def _lacks(bundle: Bundle, backend: Backend, precisions: tuple[str, ...]) -> str:
    wanted = " or ".join(backend.formats)
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
