"""Commands that are many bytes: an agent refuses a reply above 8 MB, and with it every command in it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from weakref import ref

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import A1, Dispatch, command, ids, next_delivery, open_dispatch
from wazuh_comms_trio.backends import command_rules
from wazuh_comms_trio.backends.interfaces import Action, Command
from wazuh_comms_trio.errors import MalformedRequest
from wazuh_comms_trio.services.commands import command_json
from wazuh_comms_trio.services.commands.command_json import LARGEST_REPLY, decode_commands, encode_commands


def of_size(name: str, size: int) -> Command:
    return evolve(command(name), action=Action("restart", args={"x": "y" * size}))


async def test_one_that_no_agent_takes_fails_alone(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with open_dispatch() as dispatch:
        store = dispatch.backends.commands
        await store.add([command("c1"), of_size("huge", 9_000_000), command("c2")])
        assert await dispatch.poll() == ["c1", "c2"]
        assert await dispatch.poll(limit=10) is None
        huge = store.stored["huge"]
        assert huge.status == "failed"
        assert huge.result is not None
        assert huge.result.message is not None
        assert huge.result.message.startswith("too large for an agent: 9000")
        assert "huge" not in store.claimed
        assert "the command huge fails" in caplog.text


async def test_a_set_group_that_no_agent_takes_changes_no_groups(autojump_clock: MockClock) -> None:
    async with open_dispatch() as dispatch:
        agents, store = dispatch.backends.agents, dispatch.backends.commands
        before = await agents.get(A1)
        assert before is not None
        groups = [f"{'g' * 200}{number}" for number in range(50_000)]
        await store.add([evolve(command("huge"), action=Action("set-group", args={"groups": groups}))])
        assert await dispatch.poll(limit=10) is None
        assert store.stored["huge"].status == "failed"
        assert store.stored["huge"].sent_at is None
        assert await agents.get(A1) == before


async def test_alone_it_holds_up_nobody(autojump_clock: MockClock) -> None:
    async with open_dispatch() as dispatch:
        await dispatch.backends.commands.add([of_size("huge", 9_000_000)])
        assert await dispatch.poll(limit=10) is None
        await dispatch.backends.commands.add([command("c1")])
        assert await dispatch.poll() == ["c1"]


async def test_a_claim_full_of_them_holds_up_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poll that is parked has what one claim didn't give. Found by the simulator."""
    monkeypatch.setattr(command_json, "LARGEST_REPLY", 1000)
    monkeypatch.setattr(command_rules, "CLAIM_LIMIT", 2)
    async with open_dispatch() as dispatch:
        store = dispatch.backends.commands
        await store.add([*(of_size(f"huge{number}", 1000) for number in range(5)), command("c1")])
        assert await dispatch.poll(limit=10) == ["c1"]
        assert [one.status for one in store.stored.values()] == ["failed"] * 5 + ["sent"]


async def test_a_claim_full_of_what_was_delivered_as_a_posts_holds_up_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_rules, "CLAIM_LIMIT", 1)
    async with open_dispatch() as dispatch:
        before = [command(f"before{number}") for number in range(5)]
        for each in before:
            dispatch.service.posts.delivered.note(each)
        await dispatch.backends.commands.add([*before, command("c1")])
        assert await dispatch.poll(limit=10) == ["c1"]


async def test_what_doesnt_fit_comes_with_the_next_poll(autojump_clock: MockClock) -> None:
    async with open_dispatch() as dispatch:
        await dispatch.backends.commands.add([of_size(f"c{number}", 3_000_000) for number in range(5)])
        replies = []
        for _ in range(3):
            delivery = await next_delivery(dispatch)
            assert len(encode_commands(delivery.commands)) < 8_000_000
            replies.append(ids(delivery.commands))
            await delivery.confirm()
        assert replies == [["c0", "c1"], ["c2", "c3"], ["c4"]]
        assert {one.status for one in dispatch.backends.commands.stored.values()} == {"sent"}


async def poll_twice(dispatch: Dispatch) -> None:
    await dispatch.poll()
    await dispatch.poll()


@pytest.mark.parametrize("keeps_posted", [True, False])
async def test_posted_ones_too(autojump_clock: MockClock, keeps_posted: bool) -> None:
    async with open_dispatch(keeps_posted=keeps_posted) as dispatch:
        posted = [of_size(f"c{number}", 3_000_000) for number in range(3)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll_twice, dispatch)
            await wait_all_tasks_blocked()
            assert ids(await dispatch.service.posts.post(posted)) == ["c0", "c1", "c2"]
        assert dispatch.received == {A1: ["c0", "c1", "c2"]}


def test_one_that_no_agent_takes_isnt_posted() -> None:
    target = {"type": "agent", "id": A1}
    large = {"document_id": "c", "target": target, "action": {"name": "restart", "args": {"x": "y" * LARGEST_REPLY}}}
    with pytest.raises(MalformedRequest, match=r"commands\[1\] is too large for an agent: 79"):
        decode_commands(json.dumps({"commands": [{**large, "action": {"name": "restart"}}, large]}).encode())


def test_one_that_grows_beyond_it_isnt_posted_either() -> None:
    numbers = b",".join([b"1e15"] * 500_000)
    target = b'"document_id":"c","target":{"type":"agent","id":"%b"}' % A1.encode()
    body = b'{"commands":[{%b,"action":{"name":"restart","args":{"x":[%b]}}}]}' % (target, numbers)
    assert len(body) < LARGEST_REPLY // 3
    with pytest.raises(MalformedRequest, match=r"commands\[0\] is too large for an agent: 95"):
        decode_commands(body)


async def test_what_a_reply_has_no_room_for_comes_with_the_next_poll(autojump_clock: MockClock) -> None:
    async with open_dispatch() as dispatch:
        store = dispatch.backends.commands
        await store.add([command(f"c{number}") for number in range(3)])
        delivery = await next_delivery(dispatch)
        delivery.keep(1)
        delivery.keep(1)
        await delivery.confirm()
        assert [one.status for one in store.stored.values()] == ["sent", "pending", "pending"]
        delivery = await next_delivery(dispatch)
        assert ids(delivery.commands) == ["c1", "c2"]
        delivery.keep(1)
        await delivery.release()
        assert await dispatch.poll() == ["c1", "c2"]
        assert not store.claimed


async def test_of_posted_ones_too(autojump_clock: MockClock) -> None:
    async with open_dispatch(keeps_posted=False) as dispatch, trio.open_nursery() as nursery:
        nursery.start_soon(dispatch.service.posts.post, [command("c0"), command("c1")])
        await wait_all_tasks_blocked()
        delivery = await next_delivery(dispatch)
        assert ids(delivery.commands) == ["c0", "c1"]
        delivery.keep(1)
        await delivery.confirm()
        assert await dispatch.poll() == ["c1"]


async def test_what_they_say_is_out_of_memory_while_the_reply_is_sent(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_dispatch() as dispatch:
        store, claimed = dispatch.backends.commands, list[ref[Action]]()
        claim = store.claim

        async def claim_copies(agent_ids: Collection[str]) -> Sequence[Command]:
            """As one that reads them from a file."""
            found = [evolve(one, action=evolve(one.action)) for one in await claim(agent_ids)]
            claimed.extend(ref(one.action) for one in found)
            return found

        monkeypatch.setattr(store, "claim", claim_copies)
        await store.add([of_size("c0", 100_000), of_size("c1", 100_000)])
        delivery = await next_delivery(dispatch)
        await wait_all_tasks_blocked()
        delivery.drop_contents()
        assert [action() for action in claimed] == [None, None]
        await delivery.release()
        assert await dispatch.poll() == ["c0", "c1"]
