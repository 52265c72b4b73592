"""The contract of ``PresenceStore``."""

import pytest

from tests.contract.harness import A1, A2, A3, Clock, Harness
from wazuh_comms_trio.backends.interfaces import Backends
from wazuh_comms_trio.backends.presence import AHEAD, Heard, LastSeen
from wazuh_comms_trio.errors import BackendUnavailable

NOW = 1_750_000_000.0


async def seen(backends: Backends, since: float | None = None) -> dict[str, tuple[float, float | None]]:
    return {i: (one.seen, one.sent) for i, one in (await backends.presence.last_seen(since)).items()}


async def test_nobody_was_heard_at_first(harness: Harness, backends: Backends) -> None:
    assert await seen(backends) == {}
    assert await backends.presence.about(A1) == ()
    assert dict(await backends.presence.counts(NOW)) == {"active": 0, "disconnected": 0, "never": 0}
    await backends.presence.record([])
    assert await backends.presence.about("\ud800") == ()


async def test_the_last_moment_of_each_kind_counts(harness: Harness, backends: Backends) -> None:
    for agent_id in (A1, A2):
        await harness.enrol(agent_id)
    await backends.presence.record([Heard(A1, NOW), Heard(A2.upper(), NOW + 1, NOW + 0.5)])
    await backends.presence.record([Heard(A1, NOW + 60.25, NOW + 60), Heard(A2, NOW + 61)])
    await backends.presence.record([Heard(A1, None)])
    await harness.refreshed()
    assert await seen(backends) == {A1: (NOW + 60.25, NOW + 60), A2: (NOW + 61, NOW + 0.5)}
    (news,) = await backends.presence.about(A1.upper())
    assert (news.seen, news.sent) == (NOW + 60.25, NOW + 60)


async def test_those_of_late(harness: Harness, backends: Backends) -> None:
    for agent_id in (A1, A2):
        await harness.enrol(agent_id)
    await backends.presence.record([Heard(A1, NOW), Heard(A2, NOW + 10)])
    await harness.refreshed()
    assert await seen(backends, NOW + 10) == {A2: (NOW + 10, None)}
    assert await seen(backends, NOW + 10.001) == {}


async def test_those_that_were_silent_or_sent_nothing_for_long(harness: Harness, backends: Backends) -> None:
    for agent_id in (A1, A2, A3):
        await harness.enrol(agent_id)
    await backends.presence.record([Heard(A1, NOW), Heard(A2, NOW + 100, NOW + 10), Heard(A3, NOW + 100, NOW + 90)])
    await harness.refreshed()
    store = backends.presence
    assert (await store.last_seen(before=NOW + 100)).keys() == {A1}
    assert (await store.last_seen(before=NOW)).keys() == set()
    assert (await store.last_seen(NOW + 50, sent_before=NOW + 90)).keys() == {A2}
    assert (await store.last_seen(NOW, before=NOW + 101, sent_before=NOW + 91)).keys() == {A2, A3}


async def test_some_by_id(harness: Harness, backends: Backends) -> None:
    assert dict(await backends.presence.last_seen_of([A1])) == {}
    for agent_id in (A1, A2, A3):
        await harness.enrol(agent_id)
    await backends.presence.record([Heard(A1, NOW, NOW - 5), Heard(A2, NOW + 1)])
    found = await backends.presence.last_seen_of([A1.upper(), A3, "\ud800", "x" * 600])
    assert {agent_id: (one.seen, one.sent) for agent_id, one in found.items()} == {A1: (NOW, NOW - 5)}
    assert dict(await backends.presence.last_seen_of([])) == {}


async def test_what_is_told_of_silence_is_kept(harness: Harness, backends: Backends) -> None:
    store = backends.presence
    assert await store.take_watch("n1", NOW, 100) == ""
    assert await store.keep_watch("n1", "one")
    assert await store.keep_watch("n1", "two")
    assert await store.take_watch("n1", NOW + 30, 100) == "two"
    assert await store.keep_watch("n1", "three")
    assert await store.take_watch("n1", NOW + 60, 100) == "three"
    assert await seen(backends) == {}


async def test_one_node_tells_of_silence(harness: Harness, backends: Backends) -> None:
    if harness.second is None or not backends.presence.keeps_news:
        pytest.skip("one node only")
    first = backends.presence
    async with harness.second() as others:
        second = others.presence
        assert await first.take_watch("n1", NOW, 100) == ""
        assert await second.take_watch("n2", NOW + 99, 100) is None
        assert not await second.keep_watch("n2", "not mine")
        assert await first.keep_watch("n1", "mine")
        assert await second.take_watch("n2", NOW + 101, 100) == "mine"
        assert not await first.keep_watch("n1", "not mine any more")
        assert await first.take_watch("n1", NOW + 102, 100) is None
        assert await second.take_watch("n2", NOW + 102, 100) == "mine"


async def test_agents_by_status(harness: Harness, backends: Backends) -> None:
    for agent_id in (A1, A2, A3):
        await harness.enrol(agent_id)
    for agent_id in (A1, A2):
        await backends.agents.record_login(agent_id, NOW - 900)
    await harness.settle()
    await backends.presence.record([Heard(A1, NOW), Heard(A2, NOW - 100)])
    await harness.refreshed()
    assert dict(await backends.presence.counts(NOW)) == {"active": 1, "disconnected": 1, "never": 1}
    assert dict(await backends.presence.counts(NOW - 100)) == {"active": 2, "disconnected": 0, "never": 1}
    assert dict(await backends.presence.counts(NOW + 1)) == {"active": 0, "disconnected": 2, "never": 1}


async def test_a_moment_that_lies_ahead_is_not_believed(harness: Harness, backends: Backends, clock: Clock) -> None:
    """A clock ran ahead by a day when it was written."""
    store = backends.presence
    for agent_id in (A1, A2, A3):
        await harness.enrol(agent_id)
        await backends.agents.record_login(agent_id, NOW - 5000)
    await harness.settle()
    clock.advance(86400)
    await store.record([Heard(A1, NOW + 86400, NOW + 86400), Heard(A2, NOW + 86400, NOW + 86400)])
    clock.advance(-86400)
    await store.record([Heard(A3, NOW + AHEAD, NOW - 5)])  # clocks of several nodes are never the same
    await harness.refreshed()
    assert dict(await store.counts(NOW - 1200)) == {"active": 1, "disconnected": 2, "never": 0}
    await store.record([Heard(A1, NOW - 2), Heard(A2, NOW - 3, NOW - 4)])
    await harness.refreshed()
    assert dict(await store.counts(NOW - 1200)) == {"active": 3, "disconnected": 0, "never": 0}
    assert {i: one.seen for i, one in (await store.last_seen()).items()} == {A1: NOW - 2, A2: NOW - 3, A3: NOW + AHEAD}
    assert (await store.last_seen_of([A2]))[A2].sent == NOW - 4


async def test_an_agent_that_was_removed_is_forgotten(harness: Harness, backends: Backends) -> None:
    for agent_id in (A1, A2):
        await harness.enrol(agent_id)
    await backends.presence.record([Heard(A1, NOW), Heard(A2, NOW)])
    await backends.agents.remove(A1)
    await harness.refreshed()
    assert await seen(backends) == {A2: (NOW, None)}
    assert await backends.presence.about(A1) == ()
    await harness.enrol(A1)
    assert await backends.presence.about(A1) == ()


async def test_what_isnt_said_stays(harness: Harness, backends: Backends) -> None:
    if not backends.presence.keeps_news:
        pytest.skip("it keeps no news")
    await harness.enrol(A1)
    poll = {"success": {"at": NOW, "address": "a"}}
    login = {"refusal": {"at": NOW, "address": "a", "cause": "wrong_key"}}
    await backends.presence.record([Heard(A1, NOW, None, {"channels": {"poll": poll}, "addresses": [["a", NOW]]})])
    await backends.presence.record([Heard(A1, None, None, {"channels": {"login": login}, "addresses": [["b", NOW]]})])
    (news,) = await backends.presence.about(A1)
    assert news.news == {"channels": {"poll": poll, "login": login}, "addresses": [["b", NOW]]}
    assert news.seen == NOW


async def test_many_in_one_call(harness: Harness, backends: Backends) -> None:
    ids = [f"0194857f-39b5-7bfb-a7bc-{number:012x}" for number in range(200)]
    for agent_id in ids[:3]:
        await harness.enrol(agent_id)
    await backends.presence.record([Heard(agent_id, NOW) for agent_id in ids])
    await harness.refreshed()
    assert (await seen(backends)).keys() >= set(ids[:3])


@pytest.mark.expects_errors
async def test_an_outage(harness: Harness, backends: Backends) -> None:
    if harness.outage is None:
        pytest.skip("there is none")
    await harness.enrol(A1)
    await backends.presence.record([Heard(A1, NOW)])
    async with harness.outage():
        for call in (
            lambda: backends.presence.record([Heard(A1, NOW + 1)]),
            backends.presence.last_seen,
            lambda: backends.presence.about(A1),
            lambda: backends.presence.counts(NOW),
        ):
            with pytest.raises(BackendUnavailable):
                await call()
    (news,) = await backends.presence.about(A1)
    assert news.seen == NOW


async def test_another_process_sees_it(harness: Harness, backends: Backends) -> None:
    if harness.second is None:
        pytest.skip("one process only")
    await harness.enrol(A1)
    async with harness.second() as others:
        await others.presence.record([Heard(A1, NOW, NOW)])
        await harness.refreshed()
        found = (await backends.presence.last_seen())[A1]
        assert found == LastSeen(NOW, NOW, found.node)
