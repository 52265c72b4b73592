"""Replies to polls are in the budget of bodies while they are read, and never lost for want of room."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from sys import getrefcount
from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.server.listener import COMMAND, LIMITS, FakeOffer, Fakes, app_of, read_reply, request_bytes, serving
from wazuh_comms_trio.api.agent_api import commands as module
from wazuh_comms_trio.api.agent_api.base import AgentApi
from wazuh_comms_trio.api.quart_application import ROOM_TIMEOUT
from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.http.server.body_budget import Share
from wazuh_comms_trio.services.commands import command_json
from wazuh_comms_trio.services.commands.command_json import encode_command
from wazuh_comms_trio.testing.node.daemon import open_daemon

POLL = request_bytes("GET", "/api/v1/commands")


def of_size(name: str, size: int) -> Command:
    return Command(name, Target("agent", "a"), Action("restart", args={"x": "y" * size}))


def offers(*commands: Command) -> tuple[Fakes, FakeOffer, AgentApi]:
    fakes, offer = Fakes(), FakeOffer(commands)
    fakes.commands.offers.append(offer)
    app = app_of(fakes)
    assert isinstance(app, AgentApi)
    return fakes, offer, app


async def use_up(app: AgentApi) -> Share:
    other = Share("somebody")
    await app.body_budget.take(other, app.body_budget.limit_bytes + 1)
    return other


def names(body: bytes) -> list[str]:
    return [command["document_id"] for command in json.loads(body)["commands"]]


async def test_a_large_one_is_in_the_budget_until_it_is_read(autojump_clock: MockClock) -> None:
    fakes, offer, app = offers(of_size("a", 1_000_000), of_size("b", 1_000_000))
    async with serving(fakes, app=app, buffer_bytes=65536) as server:
        stream = await server.connect()
        await stream.send_all(POLL)
        await wait_all_tasks_blocked()
        assert 2_000_000 < app.body_budget.used_bytes < 2_010_000
        assert names((await read_reply(stream)).body) == ["a", "b"]
        await offer.settled.wait()
        assert app.body_budget.used_bytes == 0
    assert offer.fate == ["confirmed"]


@pytest.mark.parametrize(("size", "times"), [(10, 1), (200, 1), (1000, 3)])
async def test_small_ones_are_encoded_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, size: int, times: int
) -> None:
    """What is encoded to learn whether all fit is the reply; a large one isn't made before it has room."""
    encoded = list[str]()

    def encode(command: Command) -> dict[str, Any]:
        encoded.append(command.document_id)
        return encode_command(command)

    async with open_daemon() as daemon:
        agent = await daemon.enrol_agent()
        assert (await agent.authenticate()).status == 200
        commands = [evolve(of_size(f"c{n:02}", size), target=Target("agent", agent.uuid)) for n in range(70)]
        await daemon.backends.commands.add(commands)
        monkeypatch.setattr(command_json, "encode_command", encode)
        reply = await agent.poll()
    assert json.loads(reply.body) == {"commands": [encode_command(command) for command in commands]}
    assert Counter(encoded) == dict.fromkeys([command.document_id for command in commands], times)


def encoded_replies(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All that are encoded from now on."""
    replies, encode = list[bytes](), module.encode_commands

    def encode_and_keep(commands: Sequence[Command]) -> bytes:
        replies.append(encode(commands))
        return replies[-1]

    monkeypatch.setattr(module, "encode_commands", encode_and_keep)
    return replies


async def test_it_is_out_of_memory_while_its_acknowledgement_is_awaited(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no room in the budget by then."""
    replies = encoded_replies(monkeypatch)
    fakes, offer, app = offers(of_size("a", 100_000))
    async with serving(fakes, app=app) as server:
        stream = await server.connect()
        await stream.send_all(POLL)
        stream.fall_silent()
        await wait_all_tasks_blocked()
        assert (offer.fate, app.body_budget.used_bytes) == ([], 0)
        references = getrefcount(replies[0])
        assert references <= 2, "it is more than the list's and the question's"
        stream.wake_up()
        await offer.settled.wait()
    assert offer.fate == ["confirmed"]


class SlowOffer(FakeOffer):
    """Its store takes its time to take note."""

    async def release(self) -> None:
        self.fate.append("released")
        await self.settled.wait()


@pytest.mark.parametrize("how", ["closed", "silent"])
async def test_it_is_out_of_memory_while_its_commands_are_given_back(
    how: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent left in the middle, or didn't read it: the error's traceback kept it."""
    replies = encoded_replies(monkeypatch)
    fakes, offer = Fakes(), SlowOffer([of_size("a", 1_000_000)])
    fakes.commands.offers.append(offer)
    async with serving(fakes, buffer_bytes=65536) as server:
        stream = await server.connect()
        await stream.send_all(POLL)
        await wait_all_tasks_blocked()
        assert len(replies) == 1
        if how == "closed":
            await stream.aclose()
        else:
            await trio.sleep(LIMITS.send_timeout + 1)
        await wait_all_tasks_blocked()
        assert offer.fate == ["released"]
        references = getrefcount(replies[0])
        assert references <= 2, "it is more than the list's and the question's"
        offer.settled.set()


async def test_without_room_what_needs_none_goes_at_once(autojump_clock: MockClock) -> None:
    fakes, offer, app = offers(COMMAND, of_size("b", 40_000), of_size("c", 40_000), COMMAND)
    async with serving(fakes, app=app) as server:
        other = await use_up(app)
        began = trio.current_time()
        reply = await server.ask(POLL)
        assert (reply.status, names(reply.body)) == (200, [COMMAND.document_id, "b"])
        assert trio.current_time() == began
        assert app.body_budget.used_bytes == other.held_bytes
    assert [command.document_id for command in offer.given_back] == ["c", COMMAND.document_id]
    assert offer.fate == ["confirmed"]


async def test_one_that_waits_for_room_is_not_made_yet(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large command for a group is a thousand agents': their replies took its bytes a thousand times, with room for
    some."""
    replies = encoded_replies(monkeypatch)
    fakes, _, app = offers(of_size("a", 1_000_000))
    async with serving(fakes, app=app) as server:
        other = await use_up(app)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.ask, POLL)
            await wait_all_tasks_blocked()
            assert not replies
            app.body_budget.give_back(other)
        assert len(replies) == 1
        assert app.body_budget.used_bytes == 0


async def test_one_that_is_large_waits_for_room_and_is_given_back_without_it(autojump_clock: MockClock) -> None:
    fakes, offer, app = offers(of_size("a", 100_000), COMMAND)
    async with serving(fakes, app=app) as server:
        other = await use_up(app)
        began = trio.current_time()
        reply = await server.ask(POLL)
        assert (reply.status, reply.header("retry-after")) == (503, "5")
        assert trio.current_time() - began == ROOM_TIMEOUT
        assert offer.fate == ["released"]
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                nonlocal reply
                reply = await server.ask(POLL)

            nursery.start_soon(ask)
            await trio.sleep(ROOM_TIMEOUT / 2)
            app.body_budget.give_back(other)
    assert (reply.status, names(reply.body)) == (200, ["a"])
    assert offer.fate == ["released", "confirmed"]


@pytest.mark.parametrize("size", [1, 60_000])
async def test_small_ones_need_none(autojump_clock: MockClock, size: int) -> None:
    fakes, offer, app = offers(of_size("a", size))
    async with serving(fakes, app=app) as server:
        await use_up(app)
        assert names((await server.ask(POLL)).body) == ["a"]
    assert offer.fate == ["confirmed"]
