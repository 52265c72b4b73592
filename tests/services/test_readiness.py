"""Can this node take events now?"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.errors import BackendUnavailable, StorageFull
from wazuh_comms_trio.services.readiness import Readiness


class Store:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self.seconds = 0.0
        self.calls = 0

    async def probe(self) -> None:
        self.calls += 1
        await trio.sleep(self.seconds)
        if self.error is not None:
            raise self.error


async def reason(readiness: Readiness) -> str:
    with pytest.raises(BackendUnavailable) as caught:
        await readiness.check()
    assert caught.value.message is not None
    return caught.value.message


async def test_it_names_what_is_wrong_and_notices_when_it_is_over(autojump_clock: MockClock) -> None:
    index, engine = Store(), Store()
    readiness = Readiness({"index": index.probe, "engine": engine.probe})
    await readiness.check()
    assert readiness.state == "ready"
    engine.error = StorageFull()
    await readiness.check()  # what was found a moment ago
    await trio.sleep(1)
    assert await reason(readiness) == "engine: The storage is full"
    assert readiness.state == "engine: The storage is full"
    engine.error = None
    await trio.sleep(1)
    await readiness.check()


async def test_many_ask_and_a_store_is_probed_once(autojump_clock: MockClock) -> None:
    index = Store()
    index.seconds = 0.5
    readiness = Readiness({"index": index.probe})
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(readiness.check)
    assert index.calls == 1


async def test_who_asks_often_never_waits_for_a_probe(autojump_clock: MockClock) -> None:
    index = Store()
    readiness = Readiness({"index": index.probe})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(readiness.run)
        await readiness.check()
        index.seconds = 0.3
        began = trio.current_time()
        for number in range(1, 51):
            await readiness.check()
            assert trio.current_time() - began == pytest.approx(0.1 * (number - 1))
            await trio.sleep_until(began + 0.1 * number)
        assert 5 <= index.calls <= 10  # each is soon out of date
        index.error = BackendUnavailable("the disk is full")
        await trio.sleep_until(began + 7)
        assert await reason(readiness) == "index: the disk is full"
        nursery.cancel_scope.cancel()


async def test_an_answer_is_never_older_than_a_second(autojump_clock: MockClock) -> None:
    """Also when the probe beside it takes long."""
    index = Store()
    readiness = Readiness({"index": index.probe})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(readiness.run)
        await readiness.check()
        index.seconds, index.error = 1.5, BackendUnavailable("the disk is full")
        began = trio.current_time()
        await trio.sleep(0.6)
        await readiness.check()
        await trio.sleep_until(began + 1)
        assert await reason(readiness) == "index: the disk is full"
        assert trio.current_time() - began == pytest.approx(2.1)
        assert index.calls == 2
        nursery.cancel_scope.cancel()


async def test_no_answer_is_a_reason(autojump_clock: MockClock) -> None:
    index = Store()
    index.seconds = 60
    readiness = Readiness({"index": index.probe})
    began = trio.current_time()
    assert await reason(readiness) == "index: no answer within 2 s"
    assert trio.current_time() - began == 2


@pytest.mark.expects_errors
async def test_an_error_of_ours_isnt_the_stores(autojump_clock: MockClock) -> None:
    index = Store()
    index.error = ZeroDivisionError()
    readiness = Readiness({"index": index.probe})
    await readiness.check()


async def test_it_is_kept_current_without_anybody_asking(autojump_clock: MockClock) -> None:
    index = Store()
    readiness = Readiness({"index": index.probe})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(readiness.run)
        index.error = BackendUnavailable("the disk is full")
        await trio.sleep(4)
        assert readiness.state == "index: the disk is full"
        nursery.cancel_scope.cancel()


async def test_a_drained_node_is_not_ready_and_says_how_its_stores_are(autojump_clock: MockClock) -> None:
    readiness = Readiness()
    readiness.drain(True)
    assert await reason(readiness) == "drained"
    assert readiness.state == "ready"
    readiness.drain(False)
    await readiness.check()
    readiness.drain(True)
    readiness.stop()
    assert readiness.state == "stopping"


async def test_a_store_that_works_is_enough_for_some(autojump_clock: MockClock) -> None:
    index, engine = Store(), Store()
    readiness = Readiness({"index": index.probe, "engine": engine.probe})
    index.error = BackendUnavailable("away")
    await readiness.check_any()
    assert await reason(readiness) == "index: away"
    engine.error = BackendUnavailable("full")
    await trio.sleep(1)
    with pytest.raises(BackendUnavailable, match="index: away; engine: full"):
        await readiness.check_any()
    assert await reason(readiness) == readiness.state == "index: away; engine: full"
    for change, word in ((lambda: readiness.drain(True), "drained"), (readiness.stop, "drained")):
        index.error = engine.error = None
        await trio.sleep(1)
        change()
        with pytest.raises(BackendUnavailable, match=word):
            await readiness.check_any()
    readiness.drain(False)
    with pytest.raises(BackendUnavailable, match="stopping"):
        await readiness.check_any()
    await Readiness().check_any()


async def test_one_that_stops_is_not_to_be_sent_anything(autojump_clock: MockClock) -> None:
    readiness = Readiness()
    readiness.stop()
    assert await reason(readiness) == "stopping"
