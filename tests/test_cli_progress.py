"""The progress display of long work."""

from __future__ import annotations

import io
import sys

import pytest

from edgeface.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is six seconds after the last."""
    times = iter(range(0, 10_000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(times)))


@pytest.mark.usefixtures("clock")
def test_log_gets_whole_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([1, 2, 3, 4, 5], "reading", unit="file")) == [1, 2, 3, 4, 5]
    assert capsys.readouterr().err == "reading: 2/5 files, 0.2/s\nreading: 4/5 files, 0.2/s\n"


@pytest.mark.usefixtures("clock")
def test_terminal_without_tqdm_rewrites_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress.track(iter("ab"), "reading")) == ["a", "b"]
    text = sys.stderr.getvalue()
    assert "reading: 2 items, 0.2/s" in text
    assert "\n" not in text
    assert text.endswith(progress.CLEAR_LINE)


def test_terminal_with_tqdm_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress.track("abc", "reading", unit="file")) == ["a", "b", "c"]
    assert "reading:   0%|" in sys.stderr.getvalue()
    assert "/3 " in sys.stderr.getvalue()


def test_quick_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(3), "reading")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
