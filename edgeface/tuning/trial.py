"""What is tried: a precision, exact or lowered, a number of threads and an input size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from edgeface.bundle import PRECISIONS, Bundle
from edgeface.detector import Detector
from edgeface.hardware import Host
from edgeface.preprocess import InputSize
from edgeface.runtimes.base import Backend
from edgeface.runtimes.base import backend as find_backend
from edgeface.tuning.agreement import POSSIBLE

_MOST_THREADS = 8


@dataclass(frozen=True)
class Trial:
    """A backend as it is tried; see ``edgeface.tuned.Measurement``."""

    backend: str
    precision: str
    exact: bool
    threads: int
    input_size: InputSize

    def open(self, bundle: Bundle) -> Detector:
        """Make the detector, as a caller's options would.

        Raises:
            EdgeFaceError: see ``Detector``.
        """
        artifact = find_backend(self.backend).artifact(bundle, (self.precision,))
        assert artifact is not None
        return Detector(
            self.backend,
            model=replace(bundle, artifacts=(artifact,)),
            precision=self.precision if self.exact else "auto",
            input_size=self.input_size,
            score_threshold=POSSIBLE,
            threads=self.threads,
        )

    def to_json(self) -> str:
        """Write it in a line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Trial:
        """Read what ``to_json`` wrote."""
        fields = json.loads(line)
        size = fields["input_size"]
        return cls(**{**fields, "input_size": tuple(size) if isinstance(size, list) else size})


def plan(
    bundle: Bundle,
    backends: Sequence[Backend],
    threads: Sequence[int],
    input_sizes: Sequence[InputSize],
) -> list[Trial]:
    """List every trial: each backend with each precision that the model has for it."""
    return [
        Trial(backend.name, precision, exact, count, size)
        for size in input_sizes
        for backend in backends
        for precision in PRECISIONS
        if backend.artifact(bundle, (precision,)) is not None
        for count in threads
        for exact in (True, False)
    ]


def usual_threads(host: Host) -> list[int]:
    """Powers of two up to the big cores, at most 8, and the number without a measurement."""
    most = min(host.big_cores, _MOST_THREADS)
    powers = {2**power for power in range(most.bit_length())}
    return sorted({*powers, host.threads})
