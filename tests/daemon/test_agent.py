"""The agent client: what it writes, what it takes, what makes its program sleep, repeat, log in again or exit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.conftest import Certificates
from wazuh_comms_trio.config.models import Ssl
from wazuh_comms_trio.config.tls import server_context
from wazuh_comms_trio.services.authentication.token_ages import ROUND
from wazuh_comms_trio.testing import (
    AgentClient,
    AgentExits,
    AgentProgram,
    AgentSettings,
    ExchangeFailed,
    MemoryListener,
    Reply,
    ReplyDecoder,
    ReplyRefused,
    open_daemon,
    stateful_event,
    stateless_event,
    throwaway_certificate,
)

PLAIN = b'HTTP/1.1 200 \r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{"token":"t"}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"


def decode(pieces: list[bytes]) -> Reply | None:
    decoder = ReplyDecoder()
    for piece in pieces:
        if piece:
            decoder.feed(piece)
    return decoder.reply


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (PLAIN, b'{"token":"t"}'),
        (CHUNKED, b"hello world"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, b'{"token":"t"}'),
    ],
)
def test_replies_in_any_cut_are_the_same(data: bytes, body: bytes) -> None:
    whole = decode([data])
    assert whole is not None
    assert whole.body == body
    assert decode([data[i : i + 1] for i in range(len(data))]) == whole
    rng = random.Random(1)
    for _ in range(100):
        cuts = sorted(rng.randrange(len(data)) for _ in range(3))
        edges = [0, *cuts, len(data)]
        assert decode([data[a:b] for a, b in pairwise(edges)]) == whole
    assert decode([data + b"tail"]) == whole


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",  # where does it end?
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 8388609\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 10_000,
    ],
)
def test_replies_that_agents_refuse(data: bytes) -> None:
    with pytest.raises(ReplyRefused):
        ReplyDecoder().feed(data)


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_else(data: bytes) -> None:
    with suppress(ExchangeFailed):
        ReplyDecoder().feed(data or b"x")


def test_an_early_end_is_no_reply() -> None:
    decoder = ReplyDecoder()
    decoder.feed(PLAIN[:-1])
    with pytest.raises(ExchangeFailed):
        decoder.feed(b"")


# --- against a server that is a script

Script = Callable[[bytes], bytes]


class Scripted:
    """A TLS server in memory: keeps what each connection wrote before its reply, and how it ended."""

    def __init__(self, answer: Script) -> None:
        certificate = throwaway_certificate()
        self.context = server_context(Ssl(certificate.key, certificate.cert))
        self.listener = MemoryListener()
        self.requests: list[bytes] = []
        self.endings: list[bytes] = []
        self.alpn_and_reuse: list[tuple[str | None, bool, str | None]] = []
        self._answer = answer

    async def serve(self, stream: trio.abc.Stream) -> None:
        tls = trio.SSLStream(stream, self.context, server_side=True)
        request = b""
        while b"\r\n\r\n" not in request:
            request += await tls.receive_some()
        head, _, body = request.partition(b"\r\n\r\n")
        if b"Transfer-Encoding" in head:
            while not body.endswith(b"0\r\n\r\n"):
                body += await tls.receive_some()
        elif b"Content-Length: " in head:
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += await tls.receive_some()
        self.requests.append(head + b"\r\n\r\n" + body)
        self.alpn_and_reuse.append((tls.selected_alpn_protocol(), tls.session_reused, tls.server_hostname))
        await tls.send_all(self._answer(self.requests[-1]))
        self.endings.append(bytes(await stream.receive_some()))
        await stream.aclose()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await trio.serve_listeners(self.serve, [self.listener], task_status=task_status)  # type: ignore[arg-type]


def reply(status: int, body: bytes = b"{}") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


async def test_what_goes_over_the_wire_is_what_agents_send(nursery: trio.Nursery) -> None:
    server = Scripted(lambda request: reply(204 if b"stateless" in request else 200))
    await nursery.start(server.run)
    agent = AgentClient(server.listener.connect, uuid="u", key="k", host="node.example")
    agent.token = "t"  # noqa: S105 - nobody checks it
    assert (await agent.post_stateless([b"event"])).status == 204
    assert (await agent.get_file("a%20b.conf")).status == 200
    first, second = server.requests
    head, _, body = first.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /api/v1/events/stateless HTTP/1.1",
        b"Host: node.example",
        b"User-Agent: WazuhXDR/v6.0.0 (Endpoint; x86_64; Linux)",
        b"Accept: application/json",
        b"Authorization: Bearer t",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]
    assert body == agent.metadata + b"event"
    assert second.startswith(b"GET /api/v1/files?file_name=a%20b.conf HTTP/1.1\r\n")
    assert b"Content-" not in second
    await wait_all_tasks_blocked()
    assert server.endings == [b"", b""]  # a FIN, and no close_notify before it
    assert server.alpn_and_reuse == [(None, False, None)] * 2


async def test_bodies_in_chunks(nursery: trio.Nursery) -> None:
    server = Scripted(lambda request: reply(200))
    await nursery.start(server.run)
    agent = AgentClient(server.listener.connect, uuid="u", key="k", chunked=True)
    event = stateless_event("m", "c", {"x": "y" * 40_000})
    await agent.post_stateless([event])
    (request,) = server.requests
    assert b"Content-Length" not in request
    body, rest = b"", request.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    assert body == agent.metadata + event


async def test_verification(certificates: Certificates, nursery: trio.Nursery) -> None:
    server = Scripted(lambda request: reply(200))
    server.context = server_context(Ssl(certificates.key, certificates.cert))
    await nursery.start(server.run)

    async def status(host: str, ca: Path) -> int:
        agent = AgentClient(server.listener.connect, uuid="u", key="k", host=host, verification="full", ca=ca)
        return (await agent.alive()).status

    assert await status("localhost", certificates.ca) == 200
    assert await status("127.0.0.1", certificates.ca) == 200
    with pytest.raises(ExchangeFailed, match=r"isn't for node\.example"):
        await status("node.example", certificates.ca)


async def test_a_foreign_ca_is_refused(certificates: Certificates, autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    context = server_context(Ssl(certificates.key, certificates.cert))

    async def serve(stream: trio.abc.Stream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, context, server_side=True).receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        agent = AgentClient(listener.connect, uuid="u", key="k", verification="certificate", ca=certificates.other_ca)
        with pytest.raises(ExchangeFailed, match="certificate"):
            await agent.alive()
        nursery.cancel_scope.cancel()


# --- the program


HOURS = 4


async def test_four_hours(autojump_clock: MockClock) -> None:
    """The token is renewed before it ends, polls come back, news is sent, commands are carried out."""
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agent = AgentProgram(await daemon.enrol_agent())
        await nursery.start(agent.run)

        async def live() -> None:
            for hour in range(HOURS):
                agent.add_stateless("logcollector", "file", {"hour": hour})
                agent.add_stateful(f"id{hour}", "fim", "create", {"file": {"path": f"/{hour}"}})
                await trio.sleep(1800)
                command = {
                    "document_id": f"c{hour}",
                    "target": {"type": "agent", "id": agent.client.uuid},
                    "action": {"name": "restart", "version": "5.0.0"},
                }
                reply = await daemon.post_commands([command])
                assert [command["document_id"] for command in reply.json()["commands"]] == [f"c{hour}"]
                await trio.sleep(1800)

        await live()
        nursery.cancel_scope.cancel()
    assert len(daemon.backends.engine.bodies) == HOURS
    assert len(daemon.backends.events.documents) == HOURS
    assert [command["document_id"] for command in agent.commands] == [f"c{hour}" for hour in range(HOURS)]
    for hour in range(HOURS):
        assert (await daemon.backends.commands.get(f"c{hour}")).status == "success"
    statuses = {(exchange.kind, exchange.status) for exchange in agent.exchanges}
    assert statuses == {
        ("authentication", 200),
        ("stateless", 204),
        ("stateful", 200),
        ("commands", 200),
        ("commands", 408),
    }
    logins = [exchange for exchange in agent.exchanges if exchange.kind == "authentication"]
    assert len(logins) <= HOURS * 3600 / (ROUND - 2) + 2  # not oftener, from its second or third token on
    assert agent.polling_died is None


async def test_a_batch_is_kept_until_a_2xx(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agent = AgentProgram(await daemon.enrol_agent())
        await nursery.start(agent.run)
        daemon.backends.engine.faults.hang()
        agent.add_stateless("m", "c", {"n": 1})
        await agent.wait_until(lambda agent: any(each.status == 503 for each in agent.exchanges))
        assert len(agent.stateless) == 1
        agent.add_stateless("m", "c", {"n": 2})
        daemon.backends.engine.faults.release()
        await agent.wait_until(lambda agent: not agent.stateless)
        nursery.cancel_scope.cancel()
    first, second = daemon.backends.engine.bodies
    assert b'{"n":1}' in first.body
    assert b'{"n":2}' not in first.body  # a failed batch is sent again unchanged
    assert b'{"n":2}' in second.body
    times = [each.time for each in agent.exchanges if each.kind == "stateless"]
    assert times[1] - times[0] == pytest.approx(30, abs=0.5)  # retry_interval


@pytest.mark.parametrize("answer", [reply(204, b""), reply(200, b"<html/>")])
async def test_an_answer_that_is_not_json_ends_the_polling(answer: bytes, autojump_clock: MockClock) -> None:
    token = "x." + "eyJleHAiOiAxMDAwMDB9" + ".x"  # {"exp": 100000}

    def serve(request: bytes) -> bytes:
        return answer if b"/commands" in request else reply(200, b'{"token":"%s"}' % token.encode())

    server = Scripted(serve)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        client = AgentClient(server.listener.connect, uuid="u", key="k", wall_clock=trio.current_time)
        agent = AgentProgram(client)
        await nursery.start(agent.run)
        await trio.sleep(3600)
        assert agent.polling_died is not None
        assert sum(b"/commands" in request for request in server.requests) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("status", "message"), [(401, "Invalid key"), (403, "Agent does not exist")])
async def test_two_texts_make_an_agent_exit(status: int, message: str, autojump_clock: MockClock) -> None:
    server = Scripted(lambda request: reply(status, b'{"message":"%b","code":1}' % message.encode()))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        agent = AgentProgram(AgentClient(server.listener.connect, uuid="u", key="k"))
        with pytest.RaisesGroup(pytest.RaisesExc(AgentExits, match=message)):
            await agent.run()
        nursery.cancel_scope.cancel()


async def test_a_rekeyed_agent_tries_again_and_again(autojump_clock: MockClock) -> None:
    """While it runs these texts end nothing: on its host it looks well."""
    from wazuh_comms_trio.services.authentication.secret_hashes import hash_key

    async with open_daemon() as daemon, trio.open_nursery() as nursery:
        agent = AgentProgram(await daemon.enrol_agent(), AgentSettings(batch_interval=1))
        await nursery.start(agent.run)
        await daemon.backends.agents.rekey(agent.client.uuid, hash_key("another"))
        agent.add_stateless("m", "c", {"n": 1})
        await trio.sleep(200)
        assert 403 in [each.status for each in agent.exchanges if each.kind == "stateless"]
        times = [each.time for each in agent.exchanges if each.kind == "authentication" and each.status == 401]
        assert all(later - time == pytest.approx(30, abs=0.5) for time, later in pairwise(times))
        assert len(times) >= 5
        await daemon.backends.agents.rekey(agent.client.uuid, hash_key(agent.client.key))
        await agent.wait_until(lambda agent: not agent.stateless)
        nursery.cancel_scope.cancel()


def test_the_data_line_is_left_out_where_there_is_no_data() -> None:
    for operation in ("create", "update", "delete"):
        assert stateful_event("i", "fim", operation, {}) == stateful_event("i", "fim", operation)
        assert stateful_event("i", "fim", operation).count(b"\n") == 1
        assert stateful_event("i", "fim", operation, {"a": 1}).endswith(b'\n{"a":1}\n')


COMMANDS = {
    "c1": {"name": "set-group", "args": {"groups": ["web", "db"]}},
    "c2": {"name": "fetch-config"},
    "c3": {"name": "set-group", "args": {"groups": ["old"]}},
    "c4": {"name": "restart"},
}


async def test_commands_are_kept_by_their_id(autojump_clock: MockClock) -> None:
    """One that comes a second time fails; set-group and fetch-config ask for the groups' .yml."""
    token = "x." + "eyJleHAiOiAxMDAwMDB9" + ".x"  # {"exp": 100000}
    asked: list[bytes] = []
    polls = iter([["c1", "c2"], ["c1", "c3", "c4"]])

    def serve(request: bytes) -> bytes:
        if b"/authentication" in request:
            return reply(200, b'{"token":"%s"}' % token.encode())
        if b"/commands" in request:
            names = next(polls, [])
            commands = [{"document_id": name, "action": COMMANDS[name]} for name in names]
            return reply(200, json.dumps({"commands": commands}).encode()) if names else reply(408)
        if b"/files" in request:
            name = request.split(b"file_name=")[1].split(b" ")[0]
            asked.append(name)
            return reply(404 if name.startswith(b"old") else 200, b"x: 1")
        return reply(200, b"results that nobody reads")

    server = Scripted(serve)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        client = AgentClient(server.listener.connect, uuid="u", key="k", wall_clock=trio.current_time)
        agent = AgentProgram(client)
        await nursery.start(agent.run)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert asked == [b"web.yml", b"db.yml", b"web.yml", b"db.yml", b"old.yml"]
    assert client.groups == ("web", "db")
    assert b'"groups":["web","db"]' in client.metadata
    sent = [line for each in server.requests if b"/stateful" in each for line in each.splitlines()]
    headers = [json.loads(line)["id"] for line in sent if line.startswith(b'{"id"')]
    codes = [json.loads(line)["command"]["result"]["code"] for line in sent if line.startswith(b'{"command"')]
    assert list(zip(headers, codes, strict=True)) == [("c1", 0), ("c2", 0), ("c1", 1), ("c3", 1), ("c4", 0)]
    assert not agent.stateful
