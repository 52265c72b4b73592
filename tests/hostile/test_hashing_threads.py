"""Keys are hashed in threads that give way to the event loop."""

from __future__ import annotations

import _thread
import os
import threading

import pytest
import trio

from wazuh_comms_trio.daemon.worker.hashing_threads import NICER, NICEST, hashing_runner

pytestmark = pytest.mark.real_clock


def priority() -> int:
    """Of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


async def test_they_have_a_lower_priority_and_the_event_loop_keeps_its_own() -> None:
    run = hashing_runner()
    own = priority()
    assert await run(priority) == await run(priority) == min(NICEST, own + NICER)
    assert priority() == own
    assert await trio.to_thread.run_sync(priority) == own  # no other work gets into such a thread


async def test_what_goes_wrong_there_comes_out_here() -> None:
    run = hashing_runner()
    with pytest.raises(ValueError, match="invalid literal"):
        await run(int, "x")
    assert await run(int, "7") == 7


async def test_where_there_cannot_be_another_thread_one_does_it_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    await trio.to_thread.run_sync(priority)
    monkeypatch.setattr(_thread, "start_new_thread", refused)
    assert await hashing_runner()(int, "7") == 7


async def test_what_has_begun_is_waited_for_and_what_has_not_is_given_up() -> None:
    """So that no more than there are processors run at a time."""
    run = hashing_runner()
    processors = len(os.sched_getaffinity(0))
    release, all_there, after = threading.Event(), threading.Barrier(processors + 1), threading.Event()

    def hold() -> None:
        all_there.wait()
        release.wait()
        after.set()

    async with trio.open_nursery() as nursery:
        for _ in range(processors):
            nursery.start_soon(run, hold)
        await trio.to_thread.run_sync(all_there.wait)
        with trio.move_on_after(0.01) as patience:
            await run(pytest.fail)
        assert patience.cancelled_caught
        nursery.cancel_scope.cancel()
        release.set()
    assert after.is_set()
