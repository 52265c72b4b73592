"""Bodies' memory: large ones go to files, one agent doesn't take what all need, who finds no room is told when to come
again."""

from __future__ import annotations

import errno
import json
import os
from contextlib import AbstractAsyncContextManager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from sys import getrefcount
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.http.server.listener import (
    Fakes,
    FakeScans,
    FakeStateful,
    app_of,
    read_reply,
    read_to_end,
    request_bytes,
    serving,
)
from tests.http.server.test_bodies import body_messages, receiver
from wazuh_comms_trio.api.agent_api.base import AgentApi
from wazuh_comms_trio.api.quart_application import ROOM_TIMEOUT, in_one_piece
from wazuh_comms_trio.backends.interfaces import EngineReply
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.errors import BodyTooLarge, Overloaded, StorageFull
from wazuh_comms_trio.foundation import file_writes
from wazuh_comms_trio.http.server.bodies import BodyBudget, RequestRoom, Spill, collect_body
from wazuh_comms_trio.http.server.body_budget import Share
from wazuh_comms_trio.http.server.replies import PIECE_BYTES, send_reply
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.stateful.reply_size import RESULT_BYTES, expected_reply
from wazuh_comms_trio.services.stateful.submission import EventResult, encode_results
from wazuh_comms_trio.testing import daemon_config, open_daemon, stateful_event

PARTS = [bytes([number]) * 60_000 for number in range(100)]
WHOLE = b"".join(PARTS)


def collected(folder: Path, budget: BodyBudget, *, limit: int = 10**8, files: int = 10**8, above: int = 300_000) -> Any:
    spill = Spill(folder, BodyBudget(files), above)
    return collect_body(
        receiver(body_messages(PARTS)), limit=limit, budget=budget, room_timeout=5, owner="a", spill=spill
    )


class TestFiles:
    async def test_a_large_body_is_read_from_a_file_without_a_name(self, tmp_path: Path) -> None:
        budget = BodyBudget(10**9)
        async with collected(tmp_path, budget) as body:
            assert isinstance(body, mmap)
            assert body[:] == WHOLE
            assert budget.used_bytes == 0
            assert os.listdir(tmp_path) == []
        assert budget.used_bytes == 0

    async def test_it_needs_little_memory(self, tmp_path: Path, autojump_clock: MockClock) -> None:
        budget = BodyBudget(1_000_000)
        holder = Share("b")
        await budget.take(holder, 600_000)
        async with collected(tmp_path, budget) as body:
            assert len(body) == len(WHOLE)

    async def test_its_own_limit(self, tmp_path: Path) -> None:
        budget = BodyBudget(10**9)
        with pytest.raises(BodyTooLarge):
            async with collected(tmp_path, budget, limit=len(WHOLE) - 1):
                raise AssertionError
        assert budget.used_bytes == 0
        async with collected(tmp_path, budget, limit=len(WHOLE)) as body:
            assert len(body) == len(WHOLE)

    async def test_a_full_disk_is_503(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full(file_writes.FileCalls):
            def write(self, descriptor: int, data: file_writes.Data) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(file_writes, "calls", Full())
        budget = BodyBudget(10**9)
        with pytest.raises(StorageFull):
            async with collected(tmp_path, budget):
                raise AssertionError
        assert budget.used_bytes == 0

    async def test_files_have_a_budget_of_their_own(self, tmp_path: Path, autojump_clock: MockClock) -> None:
        spill = Spill(tmp_path, BodyBudget(1_000_000), 300_000)
        first, second = Share("x"), Share("y")
        await spill.budget.take(first, 999_000)
        await spill.budget.take(second, 999_000)
        began = trio.current_time()
        with pytest.raises(Overloaded):
            async with collect_body(
                receiver(body_messages(PARTS)), limit=10**8, budget=BodyBudget(10**9), room_timeout=5, spill=spill
            ):
                raise AssertionError
        assert trio.current_time() - began == pytest.approx(5)

    async def test_a_large_one_is_not_begun_without_room(self, tmp_path: Path, autojump_clock: MockClock) -> None:
        """Its agent is told before it has sent anything in vain; one that has room in time is taken."""
        spill = Spill(tmp_path, BodyBudget(1_000_000), 300_000)
        first, second = Share("x"), Share("y")
        await spill.budget.take(first, 999_000)
        await spill.budget.take(second, 999_000)
        received: list[str] = []
        messages = receiver(body_messages(PARTS))

        async def receive() -> dict[str, Any]:
            received.append("part")
            return await messages()

        def begin() -> AbstractAsyncContextManager[Any]:
            budget = BodyBudget(10**9)
            return collect_body(receive, limit=10**8, budget=budget, room_timeout=5, spill=spill, declared=len(WHOLE))

        began = trio.current_time()
        with pytest.raises(Overloaded):
            async with begin():
                raise AssertionError
        assert trio.current_time() - began == pytest.approx(5)
        assert received == []
        spill.budget.give_back(first)
        spill.budget.give_back(second)
        async with begin() as body:
            assert body[:] == WHOLE
        assert spill.budget.used_bytes == 0

    async def test_a_cancelled_one_leaves_nothing(self, tmp_path: Path, autojump_clock: MockClock) -> None:
        budget = BodyBudget(10**9)
        spill = Spill(tmp_path, BodyBudget(10**9), 300_000)
        with trio.move_on_after(5) as scope:
            async with collect_body(
                receiver(body_messages(PARTS), 0.1), limit=10**8, budget=budget, room_timeout=5, spill=spill
            ):
                raise AssertionError
        assert scope.cancelled_caught
        assert (budget.used_bytes, spill.budget.used_bytes) == (0, 0)

    @pytest.mark.real_clock  # files are written in threads, for which no mock clock waits
    async def test_a_daemon_takes_it_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every event is answered, also one that goes to the quarantine from the mapped file."""
        monkeypatch.setattr(Spill.__init__, "__defaults__", (200_000,))
        events = [stateful_event(f"{n}", "fim", "create", {"v": "x" * 1000}) for n in range(1000)]
        bad = b'{"id":"bad","module":"mystery","operation":"create"}\n{"v":1}\n'
        async with open_daemon(daemon_config()) as daemon:
            assert daemon.worker.contexts[0].app.spill.above == 200_000
            agent = await daemon.enrol_agent()
            assert (await agent.authenticate()).status == 200
            reply = await agent.post_stateful([*events, bad])
            results = reply.json()["results"]
            assert [result["status"] for result in results] == [201] * 1000 + [400]
            (rejected,) = daemon.quarantine.rejected
            assert b"mystery" in rejected.payload
            assert json.loads(rejected.metadata)["agent"]["id"] == agent.uuid


class TestShares:
    async def test_an_agent_has_no_more_than_a_tenth_while_others_wait(self, autojump_clock: MockClock) -> None:
        budget = BodyBudget(1000)
        greedy, more, modest = Share("greedy"), Share("greedy"), Share("modest")
        await budget.take(greedy, 900)  # alone it may
        async with trio.open_nursery() as nursery:
            done: list[str] = []

            async def take(share: Share, size: int, name: str) -> None:
                await budget.take(share, size)
                done.append(name)

            senior = Share("other")
            await budget.take(senior, 200)  # above the limit: the one that may
            nursery.start_soon(take, more, 50, "greedy")
            await wait_all_tasks_blocked()
            nursery.start_soon(take, modest, 50, "modest")
            await wait_all_tasks_blocked()
            assert done == []
            budget.give_back(senior)
            await wait_all_tasks_blocked()
            assert done[0] == "modest"
        assert done == ["modest", "greedy"]

    async def test_greedy_ones_do_not_wait_for_each_other(self, autojump_clock: MockClock) -> None:
        budget = BodyBudget(1000)

        async def one(name: str) -> None:
            share = Share(name)
            for _ in range(20):
                await budget.take(share, 50)
                await trio.sleep(0.1)
            budget.give_back(share)

        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(one, f"{number}")
        assert budget.used_bytes == 0

    async def test_any_body_is_taken_when_it_is_alone(self, autojump_clock: MockClock) -> None:
        budget = BodyBudget(1000)
        share = Share("a")
        for _ in range(100):
            await budget.take(share, 100)
        budget.give_back(share)
        assert budget.used_bytes == 0


async def test_who_finds_no_room_is_told_when_to_come_again(autojump_clock: MockClock) -> None:
    async with open_daemon(daemon_config(limits=Limits(body_timeout=3))) as daemon:
        agent = await daemon.enrol_agent()
        assert (await agent.authenticate()).status == 200
        budget = daemon.worker.contexts[0].app.body_budget
        await budget.take(Share("x"), budget.limit_bytes)
        await budget.take(Share("y"), budget.limit_bytes)
        large = [stateful_event("a", "fim", "create", {"v": "x" * 500_000})]
        reply = await agent.post_stateful(large)
        assert (reply.status, reply.header("retry-after")) == (503, "5")
        small = [stateful_event("a", "fim", "create", {"v": "x"})]
        assert (await agent.post_stateful(small)).status == 200


async def app_without_room(fakes: Fakes) -> tuple[AgentApi, Share]:
    """And who has all of it."""
    app = app_of(fakes)
    assert isinstance(app, AgentApi)
    other = Share("b")
    await app.body_budget.take(other, app.body_budget.limit_bytes + 1)
    return app, other


class TestReplies:
    async def test_a_large_reply_is_in_the_budget_until_it_is_read(self, autojump_clock: MockClock) -> None:
        fakes = Fakes()
        fakes.stateful.reply = reply = b"x" * 1_000_000
        app = app_of(fakes)
        assert isinstance(app, AgentApi)
        async with serving(fakes, app=app, buffer_bytes=65536) as server:
            stream = await server.connect()
            await stream.send_all(request_bytes("POST", "/api/v1/events/stateful", b"{}"))
            await wait_all_tasks_blocked()
            assert app.body_budget.used_bytes == len(reply)
            assert (await read_reply(stream)).body == reply
            await wait_all_tasks_blocked()
            assert app.body_budget.used_bytes == 0

    async def test_the_work_is_not_begun_where_its_reply_would_have_no_room(self, autojump_clock: MockClock) -> None:
        fakes = Fakes()
        fakes.stateful.expected = 70_000
        app, other = await app_without_room(fakes)
        async with serving(fakes, app=app) as server:
            refused = await server.ask(request_bytes("POST", "/api/v1/events/stateful", b"{}"))
            assert (refused.status, refused.header("retry-after")) == (503, "5")
            assert trio.current_time() == ROOM_TIMEOUT
            assert not fakes.stateful.bodies
            fakes.stateful.expected = 60_000
            assert (await server.ask(request_bytes("POST", "/api/v1/events/stateful", b"{}"))).status == 200
        assert app.body_budget.used_bytes == other.held_bytes

    async def test_work_that_was_done_is_answered(self, autojump_clock: MockClock) -> None:
        """Though its reply is larger than was to be expected, and there is no room any more."""
        fakes = Fakes()
        fakes.stateful.reply = b"x" * 1_000_000
        app, other = await app_without_room(fakes)
        async with serving(fakes, app=app) as server:
            reply = await server.ask(request_bytes("POST", "/api/v1/events/stateful", b"{}"))
            assert (reply.status, reply.body) == (200, fakes.stateful.reply)
        assert trio.current_time() == 0
        assert app.body_budget.used_bytes == other.held_bytes

    async def test_a_reply_has_the_room_of_its_body(self, autojump_clock: MockClock) -> None:
        """Which waits for nobody, were there no room for another byte."""
        budget = BodyBudget(1_000_000)
        room = RequestRoom(budget, "a", 2)
        await budget.take(room.share, 300_000)
        await budget.take(Share("b"), 700_001)
        await room.reserve(300_000)
        with pytest.raises(Overloaded):
            await room.reserve(300_001)
        assert trio.current_time() == 2
        room.hold_reply(200_000)
        assert room.share.held_bytes == 200_000
        room.hold_reply(10_000)
        assert room.share.held_bytes == 0

    async def test_replies_that_are_larger_than_was_to_be_expected_are_few(self, autojump_clock: MockClock) -> None:
        """What they have above all room is waited for, whether it was asked for or not; else each would let in the
        next."""
        budget = BodyBudget(1_000_000)
        rooms = [RequestRoom(budget, f"{number}", 2) for number in range(9)]
        for room in rooms[:5]:
            await room.reserve(100_000)
        for room in rooms[:5]:
            room.hold_reply(300_000)
        with pytest.raises(Overloaded):
            await rooms[5].reserve(100_000)
        for room in rooms[:3]:
            room.give_back()
        await rooms[6].reserve(100_000)
        rooms[6].hold_reply(300_000)
        await rooms[7].reserve(100_000)  # there is just enough
        rooms[7].hold_reply(400_000)
        with pytest.raises(Overloaded):
            await rooms[8].reserve(100_000)
        rooms[7].hold_reply(60_000)
        await rooms[8].reserve(100_000)
        assert budget.used_bytes == 1_000_000

    async def test_the_body_is_gone_while_its_reply_is_sent(self) -> None:
        bodies: list[bytes | bytearray] = []

        class Keeping(FakeStateful):
            async def submit(self, caller: Caller, body: bytes | bytearray, **_: Any) -> bytes:
                bodies.append(body)
                return b"x" * 1_000_000

        async with serving(Fakes(stateful=Keeping()), buffer_bytes=65536) as server:
            stream = await server.connect()
            await stream.send_all(request_bytes("POST", "/api/v1/events/stateful", b"x" * 300_000))
            assert await stream.receive_some()
            await wait_all_tasks_blocked()
            references = getrefcount(bodies[0])
            assert references <= 2, "it is more than the list's and the question's"
            assert len(await read_to_end(stream)) > 800_000

    @pytest.mark.parametrize("events", [1, 600, 20_000])
    async def test_what_a_reply_will_take_is_about_known(self, events: int, tmp_path: Path) -> None:
        body = b"{}\n" + b"".join(
            b'{"module":"inventory","collector":"packages","id":"%040d","operation":"create"}\n{"a":1}\n' % number
            for number in range(events)
        )
        reply = len(encode_results([EventResult("wazuh-states-inventory-packages", "0" * 40, "created", 201)] * events))
        (tmp_path / "body").write_bytes(body)
        with (tmp_path / "body").open("rb") as file, mmap(file.fileno(), len(body), access=ACCESS_READ) as mapped:
            for form in (body, bytearray(body), mapped):
                expected = await expected_reply(form)
                assert expected == 0 if events == 1 else reply < 1.02 * expected < 1.3 * reply

    async def test_what_a_reply_will_take_is_not_hidden_by_escapes(self) -> None:
        events = b'{"module":"inventory","collector":"packages","id":"1","op\\u0065ration":"delete"}\n' * 2000
        assert await expected_reply(b"{}\n" + events, 2000 * RESULT_BYTES) == 2000 * RESULT_BYTES
        assert await expected_reply(b"{}\n" + events, 2002 * RESULT_BYTES) == 0

    async def test_what_documents_say_of_operations_counts_for_nothing(self) -> None:
        document = b'{"a":[' + b'"operation",' * 100_000 + b'"op\\u0065ration"]}\n'
        header = b'{"module":"inventory","collector":"packages","id":"1","operation":"create"}\n'
        assert await expected_reply(b"{}\n" + header + document) <= 4 * RESULT_BYTES

    async def test_what_a_reply_asks_for_is_an_agents_share_at_most(self, autojump_clock: MockClock) -> None:
        budget = BodyBudget(1_000_000)
        room = RequestRoom(budget, "a", 2)
        await room.reserve(5_000_000)
        assert room.share.held_bytes == 100_000

    async def test_a_scans_is_in_the_budget_in_its_bodys_place(self, autojump_clock: MockClock) -> None:
        """Whoever waits for an engine has changed nothing: without room it is refused."""
        fakes = Fakes(scans=FakeScans(reply=EngineReply(200, b"x" * 1_000_000)))
        app = app_of(fakes)
        assert isinstance(app, AgentApi)
        scan = request_bytes("POST", "/api/v1/vulnerability/scan", b" " * 300_000)
        async with serving(fakes, app=app, buffer_bytes=65536) as server:
            stream = await server.connect()
            await stream.send_all(scan)
            await wait_all_tasks_blocked()
            assert app.body_budget.used_bytes == 1_000_000
            assert (await read_reply(stream)).body == fakes.scans.reply.body
            await wait_all_tasks_blocked()
            assert app.body_budget.used_bytes == 0
            other = Share("b")
            await app.body_budget.take(other, app.body_budget.limit_bytes + 1)
            began = trio.current_time()
            refused = await server.ask(request_bytes("POST", "/api/v1/vulnerability/scan", b"{}"))
            assert (refused.status, refused.header("retry-after")) == (503, "5")
            assert trio.current_time() - began == ROOM_TIMEOUT
            fakes.scans.reply = EngineReply(200, b"x" * 60_000)
            assert (await server.ask(request_bytes("POST", "/api/v1/vulnerability/scan", b"{}"))).status == 200
        assert app.body_budget.used_bytes == other.held_bytes

    async def test_it_is_sent_in_pieces(self) -> None:
        sent: list[bytes] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message.get("body", b""))

        await send_reply(send, 200, WHOLE)
        assert b"".join(sent) == WHOLE
        assert max(map(len, sent)) == PIECE_BYTES
        sent.clear()
        sends = in_one_piece(send)
        for part, more in ((WHOLE[:9], True), (WHOLE[9:], True), (b"", False)):
            await sends({"type": "http.response.body", "body": part, "more_body": more})
        assert b"".join(sent) == WHOLE
        assert max(map(len, sent)) == PIECE_BYTES
