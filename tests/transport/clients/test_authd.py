"""Enrolment through authd."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from wazuh_comms_trio.errors import MessageInvalid, WazuhException, WazuhInternalError
from wazuh_comms_trio.testing import AuthdModel, FakeDaemon, open_fake_daemon
from wazuh_comms_trio.transport import ForceInsertion, Pool, add_agent, get_agent, open_pool, remove_agent

KEY = "0123456789abcdef" * 4


@pytest.fixture
async def daemon() -> AsyncIterator[FakeDaemon]:
    async with open_fake_daemon("authd", AuthdModel(groups={"default", "web"})) as daemon:
        yield daemon


@pytest.fixture
async def authd(daemon: FakeDaemon) -> AsyncIterator[Pool]:
    async with open_pool("authd", connect=daemon.connect) as pool:
        yield pool


async def test_add_get_remove(authd: Pool, daemon: FakeDaemon) -> None:
    agent = await add_agent(authd, "web-1", groups=["default", "web"])
    assert (agent.id, agent.name, agent.ip) == ("001", "web-1", "any")
    assert agent.key
    assert agent.key not in repr(agent)
    assert await get_agent(authd, "001") == agent
    assert await remove_agent(authd, "001") == "Agent deleted successfully."
    assert daemon.connections == 3
    assert json.loads(daemon.requests[0])["arguments"]["groups"] == "default,web"
    assert json.loads(daemon.requests[2]) == {"function": "remove", "arguments": {"id": "001", "purge": False}}


async def test_all_arguments(authd: Pool, daemon: FakeDaemon) -> None:
    force = ForceInsertion(key_mismatch=True, disconnected_time="1h", after_registration_time="30m")
    agent = await add_agent(authd, "xy", "10.0.0.1", agent_id="042", key=KEY, force=force)
    assert (agent.id, agent.ip, agent.key) == ("042", "10.0.0.1", KEY)
    assert json.loads(daemon.requests[0])["arguments"]["force"] == {
        "enabled": True,
        "key_mismatch": True,
        "disconnected_time": {"enabled": True, "value": "1h"},
        "after_registration_time": "30m",
    }


async def test_force_without_times() -> None:
    assert ForceInsertion(enabled=False).as_arguments() == {
        "enabled": False,
        "key_mismatch": True,
        "disconnected_time": {"enabled": False, "value": "0"},
        "after_registration_time": "0",
    }


async def test_authds_own_errors(authd: Pool) -> None:
    await add_agent(authd, "web-1")
    with pytest.raises(WazuhException) as caught:
        await add_agent(authd, "web-1")
    assert (caught.value.code, caught.value.message, caught.value.cmd_error) == (9008, "Duplicate name", True)
    with pytest.raises(WazuhException) as caught:
        await remove_agent(authd, "077")
    assert caught.value.code == 9011


async def test_what_would_crash_authd_is_refused(authd: Pool, daemon: FakeDaemon) -> None:
    refused: list[Callable[[], Awaitable[object]]] = [
        lambda: add_agent(authd, 5),  # type: ignore[arg-type]
        lambda: add_agent(authd, ""),
        lambda: add_agent(authd, "a\0b"),
        lambda: add_agent(authd, "two words"),  # ends remoted, keeps authd from starting
        lambda: add_agent(authd, "web-1\n002 other any 1"),  # a second line in the key file
        lambda: add_agent(authd, "web-1\n"),
        lambda: add_agent(authd, "x"),  # the framework's API takes 2 to 128 characters
        lambda: add_agent(authd, "x" * 129),
        lambda: add_agent(authd, "web-1", "10.0.0.1 x"),
        lambda: add_agent(authd, "web-1", "10.0.0.1\n"),
        lambda: add_agent(authd, "web-1", "10.0.0.300"),
        lambda: add_agent(authd, "web-1", ""),
        lambda: add_agent(authd, "web-1", key="secret"),
        lambda: add_agent(authd, "web-1", key="k" * 63 + "\n"),
        lambda: add_agent(authd, "web-1", agent_id="0042"),
        lambda: add_agent(authd, "web-1", agent_id="9" * 5000),
        lambda: add_agent(authd, "web-1", force=ForceInsertion(disconnected_time="1 h")),
        lambda: add_agent(authd, "web-1", force=ForceInsertion(after_registration_time="")),
        lambda: add_agent(authd, "web-1", force=ForceInsertion(key_mismatch=None)),  # type: ignore[arg-type]
        lambda: add_agent(authd, "xy", 10),  # type: ignore[arg-type]
        lambda: add_agent(authd, "xy", groups="web"),
        lambda: add_agent(authd, "xy", groups=["a,b"]),
        lambda: add_agent(authd, "xy", groups=[5]),  # type: ignore[list-item]
        lambda: add_agent(authd, "xy", key=5),  # type: ignore[arg-type]
        lambda: add_agent(authd, "xy", agent_id="1"),
        lambda: add_agent(authd, "xy", agent_id=1),  # type: ignore[arg-type]
        lambda: add_agent(authd, "xy", force=ForceInsertion(disconnected_time=60)),  # type: ignore[arg-type]
        lambda: add_agent(authd, "xy", force=ForceInsertion(enabled=1)),  # type: ignore[arg-type]
        lambda: remove_agent(authd, 1),  # type: ignore[arg-type]
        lambda: remove_agent(authd, "001", purge="yes"),  # type: ignore[arg-type]
        lambda: get_agent(authd, "01"),
    ]
    for call in refused:
        with pytest.raises(MessageInvalid) as caught:
            await call()
        assert caught.value.code == 1012
    # And when a program writes the message itself.
    with pytest.raises(WazuhInternalError, match=r"arguments\.id must be string"):
        await authd.request({"function": "remove", "arguments": {"id": 1}})
    assert daemon.requests == []
    assert not daemon.crashed
