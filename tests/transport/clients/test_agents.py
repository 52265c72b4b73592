"""Agents as wazuh-db knows them, their states and configurations through remoted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from wazuh_comms_trio.errors import AnswerInvalid, WazuhError, WazuhException, WazuhInternalError
from wazuh_comms_trio.testing import ComponentModel, FakeDaemon, RemotedModel, WazuhDBModel, open_fake_daemon
from wazuh_comms_trio.transport import (
    AgentStatus,
    Daemon,
    NoSuchAgent,
    Pool,
    WazuhDB,
    agent_configuration,
    agent_ids,
    agent_info,
    agent_state,
    agent_status,
    agents_stats,
    assign_groups,
    daemon_configuration,
    daemon_stats,
    open_pool,
)


@pytest.fixture
def model() -> WazuhDBModel:
    model = WazuhDBModel(page_rows=10)
    for number in range(1, 26):
        status = "active" if number % 2 else "disconnected"
        model.add_agent(number, f"agent-{number}", connection_status=status)
    return model


async def test_ids(db: WazuhDB) -> None:
    assert await agent_ids(db) == [f"{number:03}" for number in range(1, 26)]
    assert await agent_ids(db, status="active") == [f"{number:03}" for number in range(1, 26, 2)]
    await assign_groups(db, ["001", "002"], ["web"])
    assert await agent_ids(db, group="web") == ["001", "002"]
    assert await agent_ids(db, group="web", status="active") == ["001"]
    assert await agent_ids(db, group="nobody") == []


async def test_info(db: WazuhDB) -> None:
    info = await agent_info(db, "007")
    assert info is not None
    assert (info["id"], info["name"], info["group"]) == (7, "agent-7", "default")
    assert await agent_info(db, "999") is None


async def test_groups(db: WazuhDB, model: WazuhDBModel, database: FakeDaemon) -> None:
    await assign_groups(db, "003", ["web", "linux"])
    assert model.groups_of(3) == ["default", "linux", "web"]
    await assign_groups(db, "003", ["web"], mode="remove")
    assert model.groups_of(3) == ["default", "linux"]
    await assign_groups(db, "003", ["web"], mode="override", sync_status="synced")
    assert model.groups_of(3) == ["web"]
    await assign_groups(db, "003", ["linux"], mode="empty_only")
    assert model.groups_of(3) == ["web"]
    query = database.requests[2].decode()
    assert query.startswith("global set-agent-groups {")
    assert json.loads(query.split(" ", 2)[2]) == {
        "mode": "override",
        "sync_status": "synced",
        "data": [{"id": 3, "groups": ["web"]}],
    }


async def test_groups_of_thousands(db: WazuhDB, model: WazuhDBModel, database: FakeDaemon) -> None:
    for number in range(1, 2001):
        model.add_agent(number, f"agent-{number}")
    await assign_groups(db, [f"{number:03}" for number in range(1, 2001)], ["web", "x" * 80])
    assert len(model.groups["web"]) == 2000
    assert len(database.requests) == 4
    await assign_groups(db, [], ["web"])
    assert len(database.requests) == 4


async def test_unknown_agents_group_is_the_daemons_error(db: WazuhDB) -> None:
    with pytest.raises(WazuhError, match="An error occurred"):
        await assign_groups(db, "999", ["web"])


@pytest.mark.parametrize("group", ["", "a b", "a,b", 'a"b', "a\n", "..", "x" * 256, 5, None])
async def test_names_that_no_group_has(db: WazuhDB, database: FakeDaemon, group: str) -> None:
    with pytest.raises(WazuhInternalError) as caught:
        await assign_groups(db, "001", [group])
    assert caught.value.code == 1012
    assert database.requests == []


async def test_refused_before_anything_is_sent(db: WazuhDB, database: FakeDaemon) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: assign_groups(db, ["001", "1"], ["web"]),
        lambda: assign_groups(db, "001", "web"),
        lambda: assign_groups(db, "001", ["web"], mode="replace"),  # type: ignore[arg-type]
        lambda: assign_groups(db, "001", ["web"], sync_status="never"),  # type: ignore[arg-type]
        lambda: agent_info(db, "7"),
        lambda: agent_ids(db, status="active 5"),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(WazuhInternalError):
            await call()
    assert database.requests == []


# --- through remoted --------------------------------------------------------------------------------------------------


@pytest.fixture
async def remote() -> AsyncIterator[FakeDaemon]:
    model = RemotedModel(
        states={
            ("001", "agent"): {"status": "connected", "msg_count": 5, "buffer_enabled": True, "new": 1},
            ("001", "logcollector"): {"global": {}},
        },
        configurations={("001", "logcollector", "localfile"): {"localfile": [{"file": "/var/log/syslog"}]}},
        stats={number: {"messages": number} for number in range(1, 26)},
        page_rows=10,
    )
    async with open_fake_daemon("remoted", model) as daemon:
        yield daemon


@pytest.fixture
async def remoted(remote: FakeDaemon) -> AsyncIterator[Pool]:
    async with open_pool("remoted", connect=remote.connect) as pool:
        yield pool


async def test_status(remoted: Pool, remote: FakeDaemon) -> None:
    assert await agent_status(remoted, "001") == AgentStatus("connected", msg_count=5, buffer_enabled=True)
    assert await agent_state(remoted, "001", "logcollector") == {"global": {}}
    assert remote.requests == [b"001 agent getstate", b"001 logcollector getstate"]
    with pytest.raises(WazuhException) as caught:
        await agent_state(remoted, "001", "syscheck")
    assert caught.value.code == 1


async def test_configuration(remoted: Pool, remote: FakeDaemon) -> None:
    found = await agent_configuration(remoted, "001", "logcollector", "localfile")
    assert found == {"localfile": [{"file": "/var/log/syslog"}]}
    assert remote.requests == [b"001 logcollector getconfig localfile"]
    with pytest.raises(WazuhError, match="Could not get requested section"):
        await agent_configuration(remoted, "001", "syscheck", "syscheck")


async def test_unknown_agent_is_closed_without_an_answer(remoted: Pool) -> None:
    with pytest.raises(NoSuchAgent, match="no agent 099") as caught:
        await agent_status(remoted, "099")
    assert isinstance(caught.value, trio.BrokenResourceError)
    assert isinstance(caught.value, WazuhError)
    with pytest.raises(NoSuchAgent):
        await agent_configuration(remoted, "099", "agent", "client")


async def test_refused_words(remoted: Pool, remote: FakeDaemon) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: agent_state(remoted, "000"),
        lambda: agent_state(remoted, "1"),
        lambda: agent_state(remoted, "001", "agent getconfig"),
        lambda: agent_configuration(remoted, "001", "agent", "a\0b"),
        lambda: agent_configuration(remoted, "001", "agent", ""),
        lambda: daemon_configuration(remoted, "a b"),
    ]
    for call in calls:
        with pytest.raises(WazuhInternalError) as caught:
            await call()
        assert caught.value.code == 1012
    assert remote.requests == []


async def test_stats(remoted: Pool, remote: FakeDaemon) -> None:
    assert (await daemon_stats(remoted))["name"] == "wazuh-remoted"
    assert [row["id"] for row in await agents_stats(remoted)] == list(range(1, 26))
    assert len(remote.requests) == 4
    assert [row["metrics"] for row in await agents_stats(remoted, ["003", "004"])] == [{"messages": 3}, {"messages": 4}]
    remote.set_answer(lambda request: {"error": 1, "message": "due", "data": {"agents": []}})
    with pytest.raises(AnswerInvalid, match="ends where it began"):
        await agents_stats(remoted)


async def test_daemons_configuration(remoted: Pool) -> None:
    assert "remote" in await daemon_configuration(remoted, "remote")
    for name in ("com", "monitor", "wmodules", "authd"):
        model = ComponentModel(name, configurations={"internal": {"debug": "0"}}, takes="text")
        path = f"queue/sockets/{name}"
        async with (
            open_fake_daemon(name, model) as daemon,
            open_pool(Daemon(name, (path,)), connect=daemon.connect) as pool,
        ):
            assert await daemon_configuration(pool, "internal") == {"debug": "0"}
            assert daemon.requests == [b"getconfig internal"]
            with pytest.raises(WazuhError, match="Could not get"):
                await daemon_configuration(pool, "other")
    model = ComponentModel(configurations={"global": {"email": "no"}})
    async with open_fake_daemon("analysis", model) as daemon, open_pool("analysis", connect=daemon.connect) as pool:
        assert await daemon_configuration(pool, "global") == {"email": "no"}
        with pytest.raises(WazuhException) as caught:
            await daemon_configuration(pool, "other")
        assert caught.value.code == 7
