"""Lanes go to threads in the order in which they asked, and none is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from edgeface.lanes import Lane, Lanes


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not happen within 20 s"
        time.sleep(0.001)


def waiting(lanes: Lanes) -> int:
    return len(lanes._waiting)


def test_threads_get_their_turns_in_the_order_in_which_they_asked() -> None:
    lanes, order = Lanes(1), []

    def work(number: int) -> None:
        with lanes.take():
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    with lanes.take():
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda asked=number + 1: waiting(lanes) == asked)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_who_comes_back_at_once_goes_behind_those_who_wait() -> None:
    lanes, order = Lanes(1), []

    def work(name: str) -> None:
        for _ in range(3):
            with lanes.take():
                order.append(name)
                wait_until(lambda: waiting(lanes) == 1 or len(order) >= 5)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order in (list("ababab"), list("bababa"))


def test_as_many_lanes_as_asked_for_and_each_once() -> None:
    lanes = Lanes(3)
    with lanes.take() as a, lanes.take() as b, lanes.take() as c:
        assert len({id(lane) for lane in (a, b, c)}) == 3
    with lanes.take() as again:
        assert again in (a, b, c)


def test_all_lanes_wait_for_each_and_two_who_want_all_do_not_lock_each_other() -> None:
    lanes = Lanes(2)
    got: SimpleQueue[list[Lane]] = SimpleQueue()

    def take_all() -> None:
        with lanes.take_all() as every:
            got.put(every)

    threads = [threading.Thread(target=take_all, daemon=True) for _ in range(4)]
    with lanes.take():
        for thread in threads:
            thread.start()
        wait_until(lambda: waiting(lanes) == 1)
        assert got.empty()
    assert [len(got.get(timeout=20)) for _ in threads] == [2] * 4


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_wait_that_is_interrupted_loses_no_lane(
    handed_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = Lanes(1)

    class Interrupted:
        """Ctrl-C during the wait, before or after the lane came."""

        def __init__(self) -> None:
            self._queue: SimpleQueue[Lane] = SimpleQueue()
            self._calls = 0

        def put(self, lane: Lane) -> None:
            self._queue.put(lane)

        def get(self) -> Lane:
            self._calls += 1
            if self._calls == 1:
                if handed_over:
                    holder.__exit__(None, None, None)
                raise KeyboardInterrupt
            return self._queue.get(timeout=20)

    holder = lanes.take()
    holder.__enter__()
    monkeypatch.setattr("edgeface.lanes.SimpleQueue", Interrupted)
    with pytest.raises(KeyboardInterrupt), lanes.take():
        pass
    if not handed_over:
        holder.__exit__(None, None, None)
    assert waiting(lanes) == 0
    with lanes.take():
        pass
