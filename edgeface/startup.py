"""Starting a model: probe the backends, rank them, load the first that takes it, explain it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from edgeface.bundle import Artifact, Bundle
from edgeface.errors import (
    BackendUnavailableError,
    EdgeFaceError,
    InvalidOptionError,
    MissingDependencyError,
    ModelNotFoundError,
)
from edgeface.hardware import host
from edgeface.preprocess import InputSize
from edgeface.runtimes.base import Runtime, RuntimeOptions, backends, load
from edgeface.runtimes.base import backend as find_backend
from edgeface.runtimes.plugins import plugins
from edgeface.runtimes.probe import Verdict, probe
from edgeface.selection import Candidate, rank, uninstalled
from edgeface.tuned import Measurement, describe_size, recall


@dataclass(frozen=True)
class Started:
    """A loaded model.

    Attributes:
        runtime: the backend.
        artifact: what it loaded.
        chosen: it, among the candidates.
        why: why it was chosen.
        threads: worker threads.
        others: the other candidates, and why not.
        measured: what ``edgeface tune`` measured of the model on this machine, as exact as this.
    """

    runtime: Runtime
    artifact: Artifact
    chosen: Candidate
    why: str
    threads: int
    others: tuple[Candidate, ...]
    measured: tuple[Measurement, ...]


@dataclass(frozen=True)
class Explanation:
    """What a detector runs, and why; ``str()`` makes it readable.

    Attributes:
        model: name of the bundle.
        backend: name of the backend.
        why: why that backend.
        precision: precision of the artifact that was loaded.
        input_size: None, the long side, or (width, height) in pixels.
        threads: worker threads.
        mode: "latency" or "throughput".
        batch: pictures of one size of a list that are computed together.
        facts: what the backend says of itself: version, device, the precision that runs.
        others: the candidates that were not chosen, and why.
        measured: what ``edgeface tune`` measured of the model on this machine, where as exact.
    """

    model: str
    backend: str
    why: str
    precision: str
    input_size: InputSize
    threads: int
    facts: Mapping[str, str]
    others: tuple[Candidate, ...]
    mode: str = "latency"
    batch: int = 1
    measured: tuple[Measurement, ...] = ()

    def __str__(self) -> str:
        rows = {
            "model": self.model,
            "backend": f"{self.backend}: {self.why}",
            "artifact": self.precision,
            "input size": describe_size(self.input_size),
            "threads": f"{self.threads}, mode {self.mode}",
            "batch": f"{self.batch} of a list",
        }
        rows |= {name: value for name, value in self.facts.items() if name not in rows}
        lines = [f"{name:<12}{value}" for name, value in rows.items()]
        lines += [
            f"{'could run' if other.artifact else 'cannot run':<12}{other.backend}: {other.reason}"
            for other in self.others
        ]
        lines += [
            f"{'measured':<12}{one.backend}, {one.name}, {describe_size(one.input_size)}: {one}"
            for one in self.measured
        ]
        return "\n".join(lines)


def start(
    bundle: Bundle,
    backend: str,
    precision: str,
    input_size: InputSize,
    threads: int | None,
    broken: Mapping[str, str] | None = None,
    streams: int = 1,
) -> Started:
    """Load a model on the named backend, or with "auto" on the best that takes it.

    A backend that ranks higher but fails is told in one warning.

    Args:
        bundle: the model.
        backend: "auto" or a backend's name.
        precision: "auto" or a precision of the artifact.
        input_size: as ``Detector`` takes it.
        threads: worker threads; None: as many as were measured to be the fastest, or else the big
            cores that this process may use, at most 4. Several streams have one thread each.
        broken: backends to leave out, and why.
        streams: frames that are computed at the same time.

    Raises:
        EdgeFaceError: see ``Detector``.
    """
    known = backends() if backend == "auto" else {backend: find_backend(backend)}
    verdicts = _probe_all(known) if backend == "auto" else {backend: _probe_named(backend)}
    measured = recall(bundle)
    counted = 1 if streams > 1 else threads
    candidates = rank(host(), verdicts, bundle, precision, input_size, counted, measured, known)
    if backend == "auto":
        candidates += [*uninstalled(measured, known), *_broken_plugins()]
    failures = dict(broken or {})
    for chosen in candidates:
        if chosen.backend in failures:
            continue
        if chosen.artifact is None:
            if chosen.refusal is BackendUnavailableError:
                failures[chosen.backend] = chosen.reason
            continue
        data = bundle.open(chosen.artifact)
        count = threads or chosen.threads or host().threads
        options = RuntimeOptions(
            input_size=input_size if isinstance(input_size, tuple) else None,
            input_sizes=chosen.artifact.input_sizes,
            batch=chosen.artifact.batch,
            exact=precision != "auto",
            threads=count,
            streams=streams,
            cache_key=f"{bundle.name}-{chosen.artifact.sha256}",
            stride=bundle.anchors.max_stride,
            long_side=input_size if isinstance(input_size, int) else None,
        )
        try:
            runtime = load(chosen.backend, data, options)
        except EdgeFaceError as error:
            if backend != "auto":
                raise
            failures[chosen.backend] = str(error)
            continue
        if failures:
            told = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
            warnings.warn(f"edgeface runs on '{chosen.backend}', because {told}", stacklevel=4)
        others = tuple(
            replace(other, reason=failures.get(other.backend, other.reason))
            for other in candidates
            if other is not chosen
        )
        why = chosen.reason
        if backend != "auto":
            why = f"as named; {why}" if chosen.measured else "as named"
        alike = tuple(one for one in measured if one.exact == options.exact)
        return Started(runtime, chosen.artifact, chosen, why, count, others, alike)
    raise _refusal(backend, candidates, failures)


def _probe_all(names: Collection[str]) -> dict[str, Verdict]:
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(probe, names), strict=True))


def _probe_named(name: str) -> Verdict:
    """Probe a backend that the user asked for; a kept refusal may have been mended since."""
    verdict = probe(name)
    return verdict if verdict.available else probe(name, refresh=True)


def _broken_plugins() -> list[Candidate]:
    return [
        Candidate(one.name, None, one.reason, BackendUnavailableError) for one in plugins().broken
    ]


def _refusal(
    backend: str, candidates: Sequence[Candidate], failures: Mapping[str, str]
) -> EdgeFaceError:
    """Build the error for when no candidate could be loaded."""
    told = "; ".join(
        f"{other.backend}: {failures.get(other.backend, other.reason)}" for other in candidates
    )
    refusals = {other.refusal for other in candidates}
    kinds: tuple[type[EdgeFaceError], ...] = (ModelNotFoundError, InvalidOptionError)
    if backend != "auto":
        kinds = (*kinds, MissingDependencyError)
    kind = next((kind for kind in kinds if kind in refusals), BackendUnavailableError)
    return kind(f"expected the backend '{backend}' to run this model here, but {told}")
