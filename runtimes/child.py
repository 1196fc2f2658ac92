"""A Python process for what may crash or hang: it answers, or it is a verdict, never harm.

A slow board is not a hang: importing a vendor's package from an SD card takes it tens of seconds,
in which the process computes or waits for pages of its files. A process that for ``STALL`` seconds
does neither, and says nothing, hangs. So does one that is busy for longer than its caller's
patience.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from edgeface.sysfiles import text

STALL = 10.0
_POLL = 0.1
_FAREWELL = 2.0
# Hundredths of a second of computing, or pages read from disk, that count as work.
_LEAST_WORK = 5
_MARK = "edgeface-answer:"
_CRASHES = {
    "SIGILL": "an illegal instruction: the package was built for another CPU than this one",
    "SIGSEGV": "a segmentation fault",
    "SIGBUS": "a bus error",
    "SIGABRT": "an abort inside the library",
    "SIGKILL": "killed from outside, perhaps for want of memory",
}


class ChildError(Exception):
    """The process crashed, ended or hung; the message says which."""


def answer(text: str) -> None:
    """Give an answer of one line: called in the child."""
    print(_MARK + text, flush=True)


def can_start() -> bool:
    """Whether this Python can start another of itself; a frozen app cannot."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


class Child:
    """A running Python process with this one's import path.

    Args:
        code: Python source; it gives its answers by ``answer``.
        arguments: its ``sys.argv[1:]``.
        listens: it reads requests, one per line of its stdin, until that ends.
    """

    def __init__(self, code: str, *arguments: str, listens: bool = False) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, sys.path))),
            "PYTHONSAFEPATH": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            stdin=subprocess.PIPE if listens else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._said: queue.Queue[str | None] = queue.Queue()
        self._complaints: deque[str] = deque(maxlen=20)
        self._readers = [
            _read(self._process.stdout, self._said.put, lambda: self._said.put(None)),
            _read(self._process.stderr, self._complaints.append),
        ]

    def ask(self, request: str, patience: float) -> str:
        """Send a request of one line, and return the answer; see ``receive``."""
        assert self._process.stdin is not None
        # Where it is gone, receive() tells how it ended.
        with suppress(OSError):
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        return self.receive(patience)

    def receive(self, patience: float) -> str:
        """Return the next answer.

        Args:
            patience: seconds after which even a busy process counts as hanging.

        Raises:
            ChildError: it crashed, ended or hung; it is closed then.
        """
        started = alive = time.monotonic()
        work = self._work()
        while True:
            try:
                line = self._said.get(timeout=_POLL)
            except queue.Empty:
                line = "" if self._process.poll() is None else self._last_words()
            if line is None:
                raise ChildError(self._end())
            if line.startswith(_MARK):
                return line.removeprefix(_MARK).rstrip("\n")
            now, done = time.monotonic(), self._work()
            if line or done is None or work is None or done - work >= _LEAST_WORK:
                alive, work = now, done
            if now - alive > STALL:
                self._kill()
                raise ChildError(f"it hung: it did nothing for {STALL:g} s")
            if now - started > patience:
                self._kill()
                raise ChildError(f"it hung: no answer came back within {patience:g} s")

    def close(self) -> None:
        """Let the process end, or end it; a second call does nothing."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=_FAREWELL)
        except subprocess.TimeoutExpired:
            self._kill()

    def _kill(self) -> None:
        """End the process and those that it started."""
        if os.name == "posix":
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()

    def _last_words(self) -> str | None:
        """What an ended process said last; another that it started may keep its pipe open."""
        try:
            return self._said.get(timeout=1.0)
        except queue.Empty:
            return None

    def _end(self) -> str:
        """Say how the process ended, after it closed its output."""
        try:
            code = self._process.wait(timeout=STALL)
        except subprocess.TimeoutExpired:
            self._kill()
            return "it hung: it closed its output and did not end"
        self._readers[1].join(timeout=1.0)
        if code < 0:
            known = -code in set(signal.Signals)
            name = signal.Signals(-code).name if known else f"signal {-code}"
            return f"it crashed with {name} ({_CRASHES.get(name, 'fatal')})"
        last = "".join(self._complaints).strip() or "nothing on stderr"
        return f"it ended with code {code}: {last.splitlines()[-1]}"

    def _work(self) -> int | None:
        """Hundredths of a second computed and pages read from disk so far; None where untold."""
        fields = text(Path(f"/proc/{self._process.pid}/stat")).rpartition(")")[2].split()
        if not fields:
            return None
        major_faults, *ticks = (int(fields[number]) for number in (9, 11, 12, 13, 14))
        return major_faults + sum(ticks)


def _read(
    pipe: IO[str] | None, keep: Callable[[str], object], end: Callable[[], object] = bool
) -> threading.Thread:
    """Read a pipe's lines in a thread, so that the process never waits for a reader."""

    def read() -> None:
        assert pipe is not None
        with pipe:
            for line in pipe:
                keep(line)
        end()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread
