"""The process that tries one backend: a request per line of stdin, an answer to each.

A crash of the vendor's library ends this process alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeface.bundle import Bundle, load_bundle
from edgeface.detector import Detector
from edgeface.errors import EdgeFaceError
from edgeface.faces import Faces
from edgeface.runtimes.child import answer
from edgeface.tuning.trial import Trial

CODE = "import sys; from edgeface.tuning import worker; worker.main(*sys.argv[1:])"
LOOK, TIME = "look", "time"
_LEAST_CALLS = 3


def main(model: str, pictures: str) -> None:
    """Answer requests until stdin ends.

    Args:
        model: folder of the bundle.
        pictures: .npz file of the pictures.
    """
    with np.load(pictures) as kept:
        worker = Worker(load_bundle(Path(model)), [kept[name] for name in kept.files])
    for line in sys.stdin:
        action, _, trial = line.partition(" ")
        try:
            answer(json.dumps(getattr(worker, action)(Trial.from_json(trial))))
        except EdgeFaceError as error:
            answer(json.dumps({"problem": str(error)}))
        except Exception as error:
            answer(json.dumps({"problem": f"it failed: {error!r}"}))


class Worker:
    """Detectors that were asked for, each made once."""

    def __init__(self, bundle: Bundle, pictures: Sequence[NDArray[np.uint8]]) -> None:
        self._bundle, self._pictures = bundle, pictures
        self._detectors: dict[Trial, Detector] = {}

    def look(self, trial: Trial) -> dict[str, Any]:
        """Find the faces; return them per picture, and the backend's facts."""
        detector = self._detector(trial)
        faces = [faces_to_lists(detector(picture)) for picture in self._pictures]
        return {"faces": faces, "facts": dict(detector.explain().facts)}

    def time(self, trial: Trial) -> dict[str, Any]:
        """Measure the mean milliseconds per picture."""
        detector = self._detector(trial)
        passes = -(-_LEAST_CALLS // len(self._pictures))
        began = time.perf_counter()
        for _ in range(passes):
            for picture in self._pictures:
                detector(picture)
        seconds = time.perf_counter() - began
        return {"ms": 1e3 * seconds / (passes * len(self._pictures))}

    def _detector(self, trial: Trial) -> Detector:
        """Return a detector that has run before, so that no call pays for its start."""
        if trial not in self._detectors:
            detector = trial.open(self._bundle)
            for _ in range(2):
                for picture in self._pictures:
                    detector(picture)
            self._detectors[trial] = detector
        return self._detectors[trial]


def faces_to_lists(faces: Faces) -> dict[str, Any]:
    """Make plain lists of faces, for JSON."""
    landmarks = None if faces.landmarks is None else faces.landmarks.tolist()
    return {
        "boxes": faces.boxes.tolist(),
        "scores": faces.scores.tolist(),
        "landmarks": landmarks,
    }


def faces_from_lists(lists: dict[str, Any]) -> Faces:
    """Make faces of what ``faces_to_lists`` returned."""
    landmarks = lists["landmarks"]
    return Faces(
        np.array(lists["boxes"], np.float32).reshape(-1, 4),
        np.array(lists["scores"], np.float32),
        None if landmarks is None else np.array(landmarks, np.float32).reshape(-1, 5, 2),
    )
