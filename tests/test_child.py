from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeface.runtimes import child as module
from edgeface.runtimes.child import Child, ChildError

ECHO = """
import sys
from edgeface.runtimes.child import answer
for line in sys.stdin:
    answer(line.strip()[::-1])
"""
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    started: list[Child] = []

    def start(code: str, *arguments: str, listens: bool = False) -> Child:
        started.append(Child(code, *arguments, listens=listens))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_answers_one_line_to_each_request(start: Callable[..., Child]) -> None:
    child = start(ECHO, listens=True)
    assert [child.ask(text, 60) for text in ("abc", "de")] == ["cba", "ed"]


def test_noise_is_no_answer(start: Callable[..., Child]) -> None:
    code = "import sys; print('noise'); from edgeface.runtimes.child import answer; answer('yes')"
    assert start(code).receive(60) == "yes"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL (an illegal instr"),
        ("import os; os._exit(7)", "it ended with code 7: nothing on stderr"),
        ("raise RuntimeError('no device')", "it ended with code 1: RuntimeError: no device"),
    ],
)
def test_how_it_ended_is_told(code: str, reason: str, start: Callable[..., Child]) -> None:
    with pytest.raises(ChildError) as caught:
        start(code).receive(60)
    assert reason in str(caught.value)


def test_a_request_to_one_that_is_gone_tells_how_it_ended(start: Callable[..., Child]) -> None:
    child = start("import os; os._exit(3)", listens=True)
    child._process.wait()
    with pytest.raises(ChildError, match="code 3"):
        child.ask("x" * 100_000, 60)


@linux
def test_one_that_does_nothing_hangs(
    start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL", 0.5)
    child = start("import time; time.sleep(100)")
    with pytest.raises(ChildError, match=r"did nothing for 0.5 s"):
        child.receive(90)
    assert child._process.poll() is not None


@linux
def test_one_that_computes_or_says_something_does_not(
    start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL", 1.0)
    report = "from edgeface.runtimes.child import answer; answer('done')"
    busy = "import time; start = time.monotonic()\nwhile time.monotonic() < start + 2: pass\n"
    assert start(busy + report).receive(90) == "done"
    talks = "import time\nfor _ in range(20): print(flush=True); time.sleep(0.1)\n"
    assert start(talks + report).receive(90) == "done"


def test_patience_ends_with_a_busy_one(start: Callable[..., Child]) -> None:
    with pytest.raises(ChildError, match=r"no answer came back within 0.5 s"):
        start("while True: pass").receive(0.5)


@linux
def test_what_it_started_goes_with_it(start: Callable[..., Child]) -> None:
    code = (
        "import subprocess, sys, time; from edgeface.runtimes.child import answer\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        "answer(str(other.pid)); time.sleep(100)"
    )
    child = start(code)
    other = int(child.receive(60))
    with pytest.raises(ChildError):
        child.receive(0.2)
    for _ in range(100):
        try:
            os.kill(other, 0)
        except ProcessLookupError:
            return
        state = Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":  # Nobody reaps it in a container without an init.
            return
        time.sleep(0.05)
    pytest.fail("the grandchild lives on")


@linux
def test_a_pipe_that_a_grandchild_keeps_open_delays_no_verdict(
    start: Callable[..., Child],
) -> None:
    code = (
        "import os, subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(8)'])\n"
        "os._exit(5)"
    )
    started = time.monotonic()
    with pytest.raises(ChildError, match="code 5"):
        start(code).receive(60)
    assert time.monotonic() - started < 8
