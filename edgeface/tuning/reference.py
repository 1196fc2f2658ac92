"""The trial whose faces the others must find, and which trials are one and the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeface.bundle import PRECISIONS
from edgeface.errors import BackendUnavailableError, InvalidImageError
from edgeface.preprocess import InputSize
from edgeface.tuned import describe_size
from edgeface.tuning.agreement import SURE, disagreement, tolerance
from edgeface.tuning.trial import Trial
from edgeface.tuning.worker import faces_from_lists
from edgeface.tuning.workers import Answer

# Whose exact fp32 the others are compared with: the first that runs.
_REFERENCES = ("onnxruntime", "openvino", "tflite")


def compare(
    answers: Mapping[Trial, Answer], sizes: Sequence[InputSize], failed: Mapping[Trial, str]
) -> tuple[str, dict[Trial, str]]:
    """Compare all faces with the reference's at the same input size.

    Returns:
        The reference's name, and the trials that differ too much, with what differs.

    Raises:
        BackendUnavailableError: no trial found anything out.
        InvalidImageError: the reference finds no face.
    """
    wrong: dict[Trial, str] = {}
    faces = {trial: list(map(faces_from_lists, one["faces"])) for trial, one in answers.items()}
    name = ""
    for size in sizes:
        there = [trial for trial in faces if trial.input_size == size]
        if not there:
            told = "; ".join(dict.fromkeys(failed.values()))
            raise BackendUnavailableError(
                f"expected a backend that takes input size {describe_size(size)}, but {told}"
            )
        reference = min(there, key=_trust)
        if not any((one.scores >= SURE).any() for one in faces[reference]):
            raise InvalidImageError(
                f"expected pictures with faces, but {reference.backend} finds none at input "
                f"size {describe_size(size)}; name others with images= or --image"
            )
        name = name or f"{reference.backend} {reference.precision}"
        for trial in there:
            allowed = tolerance(trial.precision, trial.exact)
            if told := disagreement(faces[trial], faces[reference], allowed):
                wrong[trial] = told
    return name, wrong


def _trust(trial: Trial) -> tuple[int, bool, int]:
    """Sort key for the reference: exact fp32, on a backend that is known best, comes first."""
    known = trial.backend in _REFERENCES
    place = _REFERENCES.index(trial.backend) if known else len(_REFERENCES)
    return PRECISIONS.index(trial.precision), not trial.exact, place


def same_arithmetic(answers: Mapping[Trial, Answer]) -> dict[Trial, Trial]:
    """The trials that compute as exactly as asked although they need not, so are timed once."""
    exact = {trial: replace(trial, exact=True) for trial in answers if not trial.exact}
    return {trial: one for trial, one in exact.items() if answers.get(one) == answers[trial]}
