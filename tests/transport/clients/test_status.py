"""Counters of many agents and states in pages, as remoted and analysisd really answer (SOCKETS.md, 8)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import AnswerInvalid, MessageInvalid, WazuhException
from wazuh_comms_trio.testing import (
    ComponentModel,
    FakeDaemon,
    Oddities,
    RemotedModel,
    WazuhDBModel,
    open_fake_daemon,
)
from wazuh_comms_trio.transport import (
    Pool,
    add_agent,
    agent_configuration,
    agent_state,
    agent_status,
    agents_stats,
    ask_agent,
    assign_groups,
    broadcast,
    create_active_response,
    open_pool,
    open_wazuh_db,
)
from wazuh_comms_trio.wire.group_assignment import group_assignments

STATS: dict[int, Any] = {number: {"n": number} for number in range(1, 401)}


@pytest.fixture(params=["remoted", "analysis"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Pool, FakeDaemon]]:
    model = RemotedModel(stats=STATS) if request.param == "remoted" else ComponentModel(stats=STATS)
    name: str = request.param
    async with open_fake_daemon(name, model) as daemon, open_pool(name, connect=daemon.connect) as pool:
        yield pool, daemon


async def test_all_agents_over_several_pages(pool: tuple[Pool, FakeDaemon]) -> None:
    """A page that isn't the last has the error 1: no error, but more to come."""
    rows = await agents_stats(pool[0], "all")
    assert [row["id"] for row in rows] == list(STATS)
    assert len(pool[1].requests) == (3 if pool[0].daemon.name == "remoted" else 6)


async def test_a_long_list_is_asked_for_in_parts(pool: tuple[Pool, FakeDaemon]) -> None:
    wanted = [f"{number:03}" for number in range(1, 301)]
    assert [row["id"] for row in await agents_stats(pool[0], wanted)] == list(range(1, 301))
    longest = 149 if pool[0].daemon.name == "remoted" else 74
    sizes = [len(json.loads(request)["parameters"]["agents"]) for request in pool[1].requests]
    assert sizes[0] == max(sizes) == longest
    assert sum(sizes) == 300


async def test_agents_that_have_no_counters(pool: tuple[Pool, FakeDaemon]) -> None:
    absent = [f"{number:03}" for number in range(500, 600)]
    assert [row["id"] for row in await agents_stats(pool[0], ["001", *absent, *absent, "002"])] == [1, 2]
    with pytest.raises(WazuhException) as caught:
        await agents_stats(pool[0], absent)
    assert caught.value.code == 9
    assert await agents_stats(pool[0], []) == []


@pytest.mark.parametrize("agents", ["256", b"256", "001"])
async def test_one_text_is_no_list(pool: tuple[Pool, FakeDaemon], agents: Any) -> None:
    with pytest.raises(MessageInvalid, match=r"Error 1012 .*a sequence of texts, not one text"):
        await agents_stats(pool[0], agents)
    assert pool[1].requests == []


async def test_nor_anywhere_else() -> None:
    async with open_fake_daemon("wazuh-db", []) as daemon, open_wazuh_db(connect=daemon.connect) as db:
        with pytest.raises(MessageInvalid, match="not one text"):
            await assign_groups(db, ["001"], "web")
        with pytest.raises(MessageInvalid, match="not one text"):
            await assign_groups(db, b"001", ["web"])  # type: ignore[arg-type]
        with pytest.raises(MessageInvalid, match="not one text"):
            await add_agent(db.pool, "web-1", groups="web")
        with pytest.raises(MessageInvalid, match="not one text"):
            create_active_response("x", "abc")
        with pytest.raises(MessageInvalid, match="not one text"):
            await broadcast(None, "001", "syscheck restart")  # type: ignore[arg-type]
        assert daemon.requests == []


# --- states in pages ---


def files(count: int) -> list[dict[str, Any]]:
    return [{"location": f"/var/log/{number}", "events": number} for number in range(count)]


STATE = {
    "global": {"start": "2026-01-01", "files": files(7)},
    "interval": {"start": "2026-01-02", "files": files(4)},
}


@pytest.mark.parametrize(("page_files", "requests"), [(None, 1), (7, 1), (3, 3), (1, 7)])
async def test_logcollectors_pages_are_put_together(page_files: int | None, requests: int) -> None:
    model = RemotedModel(states={("001", "logcollector"): STATE}, page_files=page_files)
    async with open_fake_daemon("remoted", model) as daemon, open_pool("remoted", connect=daemon.connect) as remoted:
        assert await agent_state(remoted, "001", "logcollector") == STATE
        following = [b"001 logcollector getstate next"] * (requests - 1)
        assert daemon.requests == [b"001 logcollector getstate", *following]


async def test_a_state_that_is_written_anew_is_read_from_its_beginning() -> None:
    model = RemotedModel(states={("001", "logcollector"): STATE}, page_files=3, rewritten=2)
    async with open_fake_daemon("remoted", model) as daemon, open_pool("remoted", connect=daemon.connect) as remoted:
        assert await agent_state(remoted, "001", "logcollector") == STATE
        assert daemon.requests.count(b"001 logcollector getstate") == 3
        model.rewritten = 1000
        with pytest.raises(AnswerInvalid, match="wrote its state anew"):
            await agent_state(remoted, "001", "logcollector")


async def test_a_silent_agent_and_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    model = RemotedModel(states={("001", "agent"): {"status": "connected"}})
    oddities = Oddities(answer_delay=60)
    async with (
        open_fake_daemon("remoted", model, oddities=oddities) as daemon,
        open_pool("remoted", connect=daemon.connect) as remoted,
    ):
        for ask in (
            lambda deadline: agent_status(remoted, "001", deadline=deadline),
            lambda deadline: agent_state(remoted, "001", "agent", deadline=deadline),
            lambda deadline: agent_configuration(remoted, "001", "agent", "client", deadline=deadline),
            lambda deadline: ask_agent(remoted, "001", "agent", "getstate", deadline=deadline),
        ):
            begin = trio.current_time()
            with pytest.raises(trio.TooSlowError):
                await ask(begin + 5)
            assert trio.current_time() - begin == 5
        assert (await agent_status(remoted, "001")).status == "connected"
        assert trio.current_time() - begin == 65


# --- groups of many agents, as many in a query as it holds ---


@given(st.integers(1, 3000), st.lists(st.from_regex(r"[a-z]{1,255}", fullmatch=True), min_size=1, max_size=200))
def test_assignments_fit_and_lose_nobody(count: int, groups: list[str]) -> None:
    numbers = list(range(1, count + 1))
    queries = group_assignments([f"{number:03}" for number in numbers], groups, "append", "syncreq")
    found = []
    for query in queries:
        assert len(query.encode()) <= 65536
        message = json.loads(query.removeprefix("global set-agent-groups "))
        assert (message["mode"], message["sync_status"]) == ("append", "syncreq")
        assert all(one["groups"] == groups for one in message["data"])
        found += [one["id"] for one in message["data"]]
    assert found == numbers
    # No query could have taken the first agent of the next one.
    for query, following in pairwise(queries):
        first = json.dumps(json.loads(following.partition("groups ")[2])["data"][0], separators=(",", ":"))
        assert len(query) + 1 + len(first) > 65536


async def test_many_agents_with_long_names_of_groups() -> None:
    model = WazuhDBModel(groups={"g" * 255: set(), "h" * 255: set()})
    for number in range(1, 1001):
        model.add_agent(number, f"agent-{number}", groups=())
    async with open_fake_daemon("wazuh-db", model) as daemon, open_wazuh_db(connect=daemon.connect) as db:
        await assign_groups(db, [f"{number:03}" for number in range(1, 1001)], ["g" * 255, "h" * 255])
        assert len(model.groups["h" * 255]) == 1000
        assert max(map(len, daemon.requests)) > 65000
        with pytest.raises(MessageInvalid, match="300 groups are more than a query"):
            await assign_groups(db, "001", ["x" * 250 + f"{number:03}" for number in range(300)])
