"""What a user sees while an engine is built, which takes seconds to minutes."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

_CLEAR_LINE = "\r\033[K"
_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 10.0


class Progress:
    """How far a build is, on stderr: one line that moves in a terminal, a line now and then else.

    Args:
        what: what is built.
        stream: where to write; None: stderr.
    """

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self._what = what
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._shown = time.monotonic()
        self._open: dict[str, list[int]] = {}

    def begin(self, phase: str, steps: int) -> None:
        """A phase of that many steps begins, inside those that are open."""
        self._open[phase] = [0, max(steps, 1)]

    def advance(self, phase: str, done: int) -> None:
        """That many steps of a phase are done."""
        if phase in self._open:
            self._open[phase][0] = done
            self._show()

    def end(self, phase: str) -> None:
        """A phase is over."""
        self._open.pop(phase, None)

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0..1: open phases are parts of their parents' steps."""
        share, total = 1.0, 0.0
        for done, steps in self._open.values():
            share /= steps
            total += share * done
        return min(total, 1.0)

    def close(self) -> None:
        """Leave the line empty."""
        if self._terminal:
            self._write(_CLEAR_LINE)

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._shown < (_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS):
            return
        self._shown = now
        line = f"edgeface builds {self._what}: {self.fraction:.0%}"
        self._write(f"{_CLEAR_LINE}{line}" if self._terminal else f"{line}\n")

    def _write(self, text: str) -> None:
        print(text, end="", file=self._stream, flush=True)


def monitor(api: Any, progress: Progress) -> Any:
    """Make the ``IProgressMonitor`` that tells TensorRT's steps to a ``Progress``.

    TensorRT swallows what a step raises, so a key press that interrupts one ends the build and is
    remembered in ``interrupted``.
    """

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self.interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            progress.begin(phase_name, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            progress.end(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                progress.advance(phase_name, step + 1)
            except KeyboardInterrupt:
                self.interrupted = True
            return not self.interrupted

    return Monitor()
