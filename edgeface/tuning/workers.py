"""The workers of all backends: each trial's faces, then its speed, in turns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeface.runtimes.base import Backend
from edgeface.runtimes.child import Child, ChildError
from edgeface.tuning.trial import Trial
from edgeface.tuning.worker import CODE, LOOK, TIME

Answer = dict[str, Any]


class Workers:
    """One worker process per backend, started when it is first asked, and anew after a crash.

    Args:
        backends: by name.
        model: folder of the bundle.
        pictures: .npz file of the pictures.

    Attributes:
        failed: the trials that crashed, hung or raised an error, and how.
    """

    def __init__(self, backends: Mapping[str, Backend], model: Path, pictures: Path) -> None:
        self._backends = backends
        self._arguments = (str(model), str(pictures))
        self._workers: dict[str, Child] = {}
        self.failed: dict[Trial, str] = {}

    def look(self, trial: Trial) -> Answer | None:
        """Find the faces; None where it failed, and ``failed`` says why."""
        return self._ask(LOOK, trial)

    def take_turns(
        self, trials: Sequence[Trial], rounds: Iterable[int]
    ) -> dict[Trial, list[float]]:
        """Time trials one after another, round by round, so that disturbances fall on all.

        Each round begins with another trial. One that fails takes no further turn.

        Returns:
            Milliseconds per picture of every round, of the trials that did not fail.
        """
        times: dict[Trial, list[float]] = {trial: [] for trial in trials}
        for turn in rounds:
            first = turn % len(trials)
            for trial in (*trials[first:], *trials[:first]):
                answer = None if trial in self.failed else self._ask(TIME, trial)
                if answer is not None:
                    times[trial].append(answer["ms"])
        return {trial: taken for trial, taken in times.items() if trial not in self.failed}

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.close()
        self._workers = {}

    def _ask(self, action: str, trial: Trial) -> Answer | None:
        if trial.backend not in self._workers:
            self._workers[trial.backend] = Child(CODE, *self._arguments, listens=True)
        worker = self._workers[trial.backend]
        try:
            patience = self._backends[trial.backend].patience
            answer: Answer = json.loads(worker.ask(f"{action} {trial.to_json()}", patience))
        except ChildError as error:
            self._workers.pop(trial.backend).close()
            answer = {"problem": str(error)}
        if "problem" in answer:
            self.failed[trial] = answer["problem"]
            return None
        return answer


def ratios(times: Mapping[Trial, Sequence[float]], eligible: Iterable[Trial]) -> dict[Trial, float]:
    """How many times as long as the fastest of the eligible each trial takes.

    Each round is compared with its own mean, because a round that other work disturbs is slow for
    all; the median over the rounds counts.
    """
    if not times:
        return {}
    logs = np.log([*times.values()])
    scores = np.median(logs - logs.mean(axis=0), axis=1)
    score = dict(zip(times, scores.tolist(), strict=True))
    fastest = min((score[trial] for trial in eligible), default=min(score.values()))
    return {trial: float(np.exp(one - fastest)) for trial, one in score.items()}
