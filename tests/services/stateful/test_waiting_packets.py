"""Which packet is next when more wait than are written, and which are shed."""

from __future__ import annotations

from functools import partial

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import body, event, open_stateful
from wazuh_comms_trio.config.models import Batcher
from wazuh_comms_trio.errors import BackendUnavailable, Overloaded
from wazuh_comms_trio.services.stateful.batcher import MAX_WAITING
from wazuh_comms_trio.services.stateful.submission import Packet
from wazuh_comms_trio.services.stateful.waiting_packets import NEWEST_FIRST_AFTER, WaitingPackets


def packet(name: str) -> Packet:
    """Of the agent that the name begins with."""
    made = Packet(name[0], None, 1, 1e9)
    made.name = name  # type: ignore[attr-defined]
    return made


def waiting(*names: str) -> tuple[WaitingPackets, dict[str, Packet]]:
    """A second after each other, from 0 on."""
    packets = {name: packet(name) for name in names}
    held = WaitingPackets()
    for moment, each in enumerate(packets.values()):
        held.add(each, moment)
    return held, packets


def names(packets: list[Packet | None]) -> list[str | None]:
    return [None if each is None else each.name for each in packets]  # type: ignore[attr-defined]


class TestOrder:
    async def test_as_they_came_while_nobody_has_waited_for_long(self) -> None:
        held, _ = waiting("a1", "b1", "a2")
        assert names([held.next(NEWEST_FIRST_AFTER) for _ in range(4)]) == ["a1", "b1", "a2", None]
        assert len(held) == 0

    async def test_then_the_newest_agent_first_and_its_packets_in_order(self) -> None:
        held, _ = waiting("a1", "b1", "c1", "b2")
        assert names([held.next(10) for _ in range(5)]) == ["b1", "b2", "c1", "a1", None]

    async def test_what_nobody_waits_for_is_dropped(self) -> None:
        held, packets = waiting("a1", "b1", "c1")
        packets["a1"].abandoned = True
        assert names([held.next(NEWEST_FIRST_AFTER + 1) for _ in range(3)]) == ["b1", "c1", None]


class TestShed:
    async def test_all_of_the_agent_that_has_waited_longest(self) -> None:
        held, _ = waiting("a1", "b1", "a2", "c1")
        assert held.shed(NEWEST_FIRST_AFTER) == []
        assert names([*held.shed(10)]) == ["a1", "a2"]
        assert names([*held.shed(10)]) == ["b1"]
        assert held.shed(10) == []  # nobody else is left
        assert names([*held.take_all()]) == ["c1"]
        assert len(held) == 0


async def test_more_agents_than_the_index_serves(autojump_clock: MockClock) -> None:
    """Five times what it carries: what is taken is fresh, what is shed is told to come again, and nothing
    is lost in between."""
    shed: list[int] = []
    taken: list[float] = []
    refused: list[BackendUnavailable] = []
    async with open_stateful(batcher=Batcher(max_elements=1)) as stateful:
        stateful.service._batcher._refused = shed.append
        stateful.backends.events.faults.delay = 0.4  # eight at a time: 20 a second

        async def submit(number: int) -> None:
            agent_id = f"0194857f-39b5-7bfb-a7bc-{number:012x}"
            began = trio.current_time()
            try:
                await stateful.submit(body(event(f"e{number}"), agent_id=agent_id), agent_id)
            except BackendUnavailable as error:
                refused.append(error)
            else:
                taken.append(trio.current_time() - began)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(30 * 100):
                await trio.sleep_until(began + number / 100)
                nursery.start_soon(submit, number)
    assert len(taken) + len(refused) == 30 * 100
    assert len(taken) >= 0.9 * 20 * 30
    assert sorted(taken)[len(taken) // 2] < 1
    assert sum(shed) > 500
    assert sum(isinstance(error, Overloaded) for error in refused) == sum(shed)
    assert len(stateful.backends.events.documents) >= len(taken)


async def test_one_agent_alone_is_never_shed(autojump_clock: MockClock) -> None:
    ended: list[int] = []
    async with open_stateful(batcher=Batcher(max_elements=1)) as stateful:
        stateful.backends.events.faults.delay = 0.02

        async def submit(number: int) -> None:
            await stateful.submit(body(event(f"e{number}")), limit=1000)
            ended.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(MAX_WAITING + 50):
                nursery.start_soon(partial(submit, number))
                await wait_all_tasks_blocked()
    assert ended == list(range(MAX_WAITING + 50))


async def test_one_that_comes_as_its_agents_are_released_goes_behind_them(autojump_clock: MockClock) -> None:
    """It may reach the writer that collects before that has seen them: which task runs first is trio's choice."""
    for _ in range(30):
        async with open_stateful() as stateful, trio.open_nursery() as nursery:
            stateful.backends.events.faults.hang()
            for number in range(3):
                packet_body = body(event("e1", data={"n": number}))
                nursery.start_soon(stateful.submit, packet_body)
                if number < 2:
                    await wait_all_tasks_blocked()
            stateful.backends.events.faults.release()
            await wait_all_tasks_blocked()
            (document,) = stateful.backends.events.documents.values()
            assert b'"n": 2}' in document.body
