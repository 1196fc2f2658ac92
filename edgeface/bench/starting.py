"""From the start of a process to the first faces, and the memory that it then takes.

Run as a program, it is that process: it imports what an app would, and prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeface.cache import cache_dir
from edgeface.errors import InferenceError

if TYPE_CHECKING:
    from edgeface.bench.candidates import Candidate
    from edgeface.bench.scenes import Image
    from edgeface.bench.settings import Settings

WARM_STARTS = 3
FRAMES = 100
PATIENCE = 600.0
TUNED = "tune"


@dataclass(frozen=True)
class Start:
    """A fresh process.

    Attributes:
        cold: seconds from its start to the first faces, with an empty cache of edgeface's.
        warm: the same with the cache that the first start left; median of a few.
        rss_mib: resident memory after the first faces; None where the kernel does not tell.
        rss_later_mib: after more pictures, by default ``FRAMES``.
        peak_mib: the most that it took.
    """

    cold: float
    warm: float
    rss_mib: float | None
    rss_later_mib: float | None
    peak_mib: float | None


def measure_start(
    candidate: Candidate, image: Image, settings: Settings, frames: int = FRAMES
) -> Start:
    """Start fresh processes, the first with an empty cache but for what ``edgeface tune`` kept.

    Args:
        candidate: what they run.
        image: BGR uint8 (H, W, 3).
        settings: how to look at it.
        frames: how often the last of them looks at it once more.

    Raises:
        InferenceError: one of them fails.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="edgeface-bench-") as folder:
        picture = Path(folder) / "picture.npy"
        np.save(picture, image)
        _keep_tuning(Path(folder))
        colder, *warmer, last = (
            _run(candidate, picture, settings, more) for more in (*[0] * WARM_STARTS, frames)
        )
    first, later = last["resident"]
    return Start(
        cold=colder["seconds"],
        warm=statistics.median(one["seconds"] for one in (*warmer, last)),
        rss_mib=first and first[0],
        rss_later_mib=later and later[0],
        peak_mib=later and later[1],
    )


def _keep_tuning(folder: Path) -> None:
    """Let "auto" choose there as it chooses here."""
    home = cache_dir()
    if home is not None and (home / TUNED).is_dir():
        shutil.copytree(home / TUNED, folder / home.name / TUNED)


def _run(candidate: Candidate, picture: Path, settings: Settings, frames: int) -> dict[str, Any]:
    from edgeface.bench.candidates import to_dict

    task = {
        "candidate": to_dict(candidate),
        "picture": str(picture),
        "settings": asdict(settings),
        "frames": frames,
    }
    command = [sys.executable, "-m", "edgeface.bench.starting", json.dumps(task)]
    environment = os.environ | {"XDG_CACHE_HOME": str(picture.parent)}
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise InferenceError(
            f"expected {candidate.name} to start, but it took more than {PATIENCE:.0f} s; leave "
            "it out"
        ) from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InferenceError(
            f"expected {candidate.name} to run in a process of its own, got: {said}; leave it out"
        )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    answer["seconds"] = answer.pop("first_faces") - began
    return answer


def main(task: dict[str, Any]) -> None:
    """Be the fresh process."""
    import cv2
    import numpy as np

    from edgeface.bench.candidates import from_dict
    from edgeface.bench.process import resident
    from edgeface.bench.settings import Settings

    candidate = from_dict(task["candidate"])
    cv2.setNumThreads(candidate.threads)
    size = task["settings"].pop("input_size")
    settings = Settings(tuple(size) if isinstance(size, list) else size, **task["settings"])
    picture = np.load(task["picture"])
    detector = candidate.open(settings)
    detector(picture)
    first_faces, first = time.monotonic(), resident()
    for _ in range(task["frames"]):
        detector(picture)
    print(json.dumps({"first_faces": first_faces, "resident": (first, resident())}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
