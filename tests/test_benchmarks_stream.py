from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeface import Faces
from edgeface.capture import Capture
from edgeface.stream import Stream

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "stream.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_stream", SCRIPT)
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec.loader.exec_module(script)

    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for value in (50, 100, 150):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    capture = Capture(lambda: script.LoopedCamera(clip, 100.0, math.inf), "every")
    with Stream(lambda image: Faces.empty(), capture) as stream:
        samples = script.run(stream, 0.5)
    table = script.table(stream.stats, samples, 100.0, stream.stats.frames)

    assert 10 <= stream.stats.frames <= 60, "more than the clip's 3 frames, at 100 a second"
    assert samples[0].rss_mib > 10
    assert samples[-1].threads >= 2
    assert f"| frames offered, handed out, dropped | {stream.stats.frames}," in table
    assert "| reconnects | 0 |" in table
