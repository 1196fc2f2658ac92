"""What is compared: edgeface's models on backends, and peers' files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeface.bench.settings import Settings
from edgeface.errors import BackendUnavailableError, EdgeFaceError
from edgeface.faces import Faces
from edgeface.runtimes.base import backends as known_backends

LOWERED = ("bf16", "f16", "fp16")
RUNNER_NAMES = {"onnxruntime": "ONNX Runtime", "opencv": "cv2.FaceDetectorYN"}


class Opened(Protocol):
    """A detector that is ready."""

    profile: dict[str, float]

    def __call__(self, image: NDArray[np.uint8], /) -> Faces:
        """Find the faces of a BGR picture."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@dataclass(frozen=True)
class Ours:
    """A model of edgeface on a backend.

    Attributes:
        model: a shipped model's name, or the folder of a bundle.
        backend: as ``Detector`` takes it.
        precision: as ``Detector`` takes it.
        threads: worker threads.
        name: what is printed; it tells what "auto" came to.
        runs: backend and precision of the artifact that it came to.
    """

    model: str
    backend: str
    precision: str
    threads: int
    name: str = ""
    runs: tuple[str, str] = ("", "")

    def open(self, settings: Settings) -> Opened:
        """Load it.

        Raises:
            EdgeFaceError: see ``Detector``.
        """
        from edgeface.detector import Detector

        detector: Opened = Detector(
            self.backend,
            model=self.model,
            precision=self.precision,
            threads=self.threads,
            **asdict(settings),
        )
        return detector


@dataclass(frozen=True)
class Peer:
    """Another detector's ONNX file.

    Attributes:
        file: the file.
        runner: "onnxruntime", or "opencv" for ``cv2.FaceDetectorYN``.
        threads: worker threads.
        name: what is printed.
    """

    file: str
    runner: str
    threads: int
    name: str = ""

    def open(self, settings: Settings) -> Opened:
        """Load it.

        Raises:
            EdgeFaceError: see ``edgeface.bench.peers.open_peer``.
        """
        from edgeface.bench.peers import open_peer

        opened: Opened = open_peer(Path(self.file), self.runner, self.threads, settings)
        return opened


Candidate = Ours | Peer


def to_dict(candidate: Candidate) -> dict[str, Any]:
    """Plain values, for JSON; ``from_dict`` takes them."""
    return {"kind": type(candidate).__name__.lower(), **asdict(candidate)}


def from_dict(values: Mapping[str, Any]) -> Candidate:
    """Make a candidate of what ``to_dict`` gave."""
    fields = {name: value for name, value in values.items() if name != "kind"}
    if values["kind"] == "peer":
        return Peer(**fields)
    return Ours(**{**fields, "runs": tuple(fields["runs"])})


def find_ours(
    models: Iterable[str],
    backends: Sequence[str],
    precisions: Sequence[str],
    threads: Sequence[int],
    settings: Settings,
) -> tuple[list[Ours], dict[str, str]]:
    """List what runs here of all combinations; those that come to the same are listed once.

    Args:
        models: shipped models' names, or folders of bundles.
        backends: names; empty: "auto", and every backend that runs here.
        precisions: "auto" and names of precisions.
        threads: numbers of worker threads.
        settings: how they will run.

    Returns:
        The candidates, and why which backend of those that nobody named is left out.

    Raises:
        BackendUnavailableError: nothing runs here.
        EdgeFaceError: a backend that was named does not run; see ``Detector``.
    """
    found: dict[tuple[object, ...], Ours] = {}
    left_out: dict[str, str] = {}
    for model, backend, precision, number in product(
        models, backends or ("auto", *known_backends()), precisions, threads
    ):
        if backend in left_out:
            continue
        candidate = Ours(model, backend, precision, number)
        try:
            opened = candidate.open(settings)
        except EdgeFaceError as error:
            if backends:
                raise
            left_out[backend] = str(error)
            continue
        resolved = _resolve(candidate, opened)
        opened.close()
        found.setdefault((model, *resolved.runs, resolved.name.partition(" (")[0]), resolved)
    if not found:
        told = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise BackendUnavailableError(f"expected a backend to run here, but {told}")
    left_out.pop("auto", None)
    return list(found.values()), left_out


def find_peers(files: Iterable[Path], threads: Sequence[int]) -> list[Peer]:
    """List the ways to run peers' files.

    Raises:
        EdgeFaceError: a file cannot be used; see ``edgeface.bench.peers.open_peer``.
    """
    from edgeface.bench.peers import runners

    return [
        Peer(str(file), runner, number, f"{file.stem}, {RUNNER_NAMES[runner]}{_threads(number)}")
        for file in files
        for runner in runners(file)
        for number in threads
    ]


def _resolve(candidate: Ours, opened: Any) -> Ours:
    told = opened.explain()
    arithmetic = told.facts.get("precision", "")
    lowered = f" with {arithmetic}" if arithmetic in LOWERED else ""
    name = f"{told.model}, {told.backend} {told.precision}{lowered}{_threads(candidate.threads)}"
    auto = " (auto)" if candidate.backend == "auto" and candidate.precision == "auto" else ""
    return replace(candidate, name=name + auto, runs=(told.backend, told.precision))


def _threads(number: int) -> str:
    return "" if number == 1 else f", {number} threads"
