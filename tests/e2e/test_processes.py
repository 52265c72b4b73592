"""Real daemons as processes, on embedded backends, with real agents' requests over TCP."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from tests.conftest import Certificates
from tests.e2e.agents import PASSWORD, WRONG, event, find, lock, logged_in, stored
from tests.e2e.processes import PROGRAMS, Files, Running, start_daemon, tool, write_files
from wazuh_comms_trio.testing import (
    AgentClient,
    ExchangeFailed,
    Reply,
    agent_tls,
    connect_tcp,
    enroll,
    exchange,
    open_tls,
    request_head,
    stateless_event,
)

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

SCAN = {"type": "packagelist", "agent": {"id": "a"}, "packages": [], "hotfixes": []}


# --- a whole day


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_agents_whole_day(chunked: bool, daemon_files: Files) -> None:
    (daemon_files.groups / "web.conf").write_text("<agent_config/>")
    async with start_daemon(daemon_files) as daemon:
        agent = await daemon.add_agent("a1", "--group", "web", chunked=chunked)
        assert (await agent.alive()).status == 200
        assert (await agent.authenticate()).status == 200

        reply = await agent.post_stateless([stateless_event("logcollector", "file", {"event": {"original": "hello"}})])
        assert (reply.status, reply.body) == (204, b"")
        reply = await agent.post_stateful([event(1), event(2)])
        assert [result["status"] for result in reply.json()["results"]] == [201, 201]
        assert [result["id"] for result in reply.json()["results"]] == ["id1", "id2"]

        reply = await agent.get_file("web.conf")
        assert (reply.status, reply.body) == (200, b"<agent_config/>")
        assert (await agent.get_file("other.conf")).status == 404
        reply = await agent.scan(SCAN)
        assert (reply.status, reply.body) == (200, b"")

        async with trio.open_nursery() as nursery:
            polled: list[Reply] = []

            async def poll() -> None:
                polled.append(await agent.poll())

            nursery.start_soon(poll)
            sent = await tool(daemon_files, "commands", "send", "--agent", agent.uuid, "restart")
        (command,) = polled[0].json()["commands"]
        assert command["action"]["name"] == "restart"
        (document_id,) = find(sent, "document_id")
        assert command["document_id"] == document_id
        assert (await agent.report(command["document_id"], 0, "done")).status == 200
        shown = await tool(daemon_files, "commands", "show", document_id)
        assert find(shown, "status") == ["success"]


async def test_an_agent_joins_and_works(tmp_path: Path, certificates: Certificates) -> None:
    command = [str(PROGRAMS / "wazuh-comms"), "enrollment", "passwd", "admin"]
    done = await trio.run_process(command, stdin=PASSWORD.encode() + b"\n", capture_stdout=True)
    users = yaml.safe_load(done.stdout)
    enrollment = {"host": "127.0.0.1", "port": 0, "users": users}
    files = write_files(tmp_path, certificates.cert, certificates.key, enrollment=enrollment)
    async with start_daemon(files) as daemon:
        assert daemon.enrollment_port is not None
        connect = connect_tcp("127.0.0.1", daemon.enrollment_port)
        uuid, key = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1", "k" * 32
        options: dict[str, Any] = {"user": "admin", "uuid": uuid, "key": key, "ca": certificates.ca}
        reply = await enroll(connect, password=WRONG, verification="full", **options)
        assert reply.status == 401
        assert set(reply.json()) >= {"title", "detail", "error"}
        reply = await enroll(connect, password=PASSWORD, verification="full", **options)
        assert reply.status == 201
        assert (await enroll(connect, password=PASSWORD, **options)).status == 409
        (entry,) = [json.loads(line) for line in (files.state / "audit.log").read_text().splitlines()]
        assert (entry["action"], entry["user"], entry["address"]) == ("enrolment", "admin", "127.0.0.1")
        assert entry["object"] == uuid
        assert key not in json.dumps(entry)
        agent = daemon.client(uuid, key, ca=certificates.ca, verification="full")
        assert (await agent.authenticate()).status == 200
        assert (await agent.post_stateful([event(1)])).status == 200


# --- the end


async def test_sigterm_answers_parked_polls_and_ends_with_0(daemon_files: Files) -> None:
    async with start_daemon(daemon_files) as daemon:
        agents = await daemon.add_agents(10)
        for agent in agents:
            await agent.authenticate()
        replies: list[Reply] = []

        async def poll(agent: AgentClient) -> None:
            replies.append(await agent.poll())

        await daemon.connections(0)
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(poll, agent)
            await daemon.connections(len(agents))
            began = trio.current_time()
            daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0
        assert trio.current_time() - began < 2
        assert {reply.status for reply in replies} == {408}
        assert not daemon_files.socket.exists()
        with pytest.raises(ExchangeFailed):
            await agents[0].alive()


async def test_ctrl_c_ends_it_too_and_a_second_signal_hurries(daemon_files: Files) -> None:
    async with start_daemon(daemon_files) as daemon:
        daemon.process.send_signal(signal.SIGINT)
        assert await daemon.process.wait() == 0
    async with start_daemon(daemon_files) as daemon:
        agent = await logged_in(daemon)
        with lock(daemon_files):  # a request that can't finish
            async with trio.open_nursery() as nursery:

                async def post() -> None:
                    with pytest.raises(ExchangeFailed):
                        await agent.post_stateful([event(1)])

                await daemon.connections(0)
                nursery.start_soon(post)
                await daemon.connections(1)
                daemon.process.send_signal(signal.SIGTERM)
                await daemon.wait_for_line("SIGTERM: stopping")
                began = trio.current_time()
                daemon.process.send_signal(signal.SIGTERM)
                await daemon.process.wait()
            assert trio.current_time() - began < 8


async def test_requests_in_flight_finish(daemon_files: Files) -> None:
    """A body that is on its way at SIGTERM is read, stored and answered."""
    async with start_daemon(daemon_files) as daemon:
        agent = await logged_in(daemon)
        body = agent.metadata + event(1)
        stream = await open_tls(daemon.connect, agent_tls(), host="localhost")
        headers = [("Host", "h"), ("Authorization", f"Bearer {agent.token}"), ("Content-Length", str(len(body)))]
        await stream.send_all(request_head("POST", "/api/v1/events/stateful", headers) + body[:50])
        await stream.send_all(body[50:100])
        daemon.process.send_signal(signal.SIGTERM)
        await daemon.wait_for_line("SIGTERM: stopping")
        reply = await exchange(stream, body[100:])
        assert (reply.status, reply.json()["results"][0]["status"]) == (200, 201)
        await stream.aclose()
        assert await daemon.process.wait() == 0
    assert (await stored(daemon_files))[1] == [f"{agent.uuid}_id1"]


# --- agents that are taken away while it runs


@pytest.mark.parametrize("change", ["remove", "rekey"])
async def test_removal_and_rekeying_by_the_tool_count_from_the_next_request(change: str, daemon_files: Files) -> None:
    async with start_daemon(daemon_files) as daemon:
        agent = await logged_in(daemon)
        assert (await agent.post_stateful([event(1)])).status == 200
        async with trio.open_nursery() as nursery:

            async def poll() -> None:
                reply = await agent.poll()
                assert (reply.status, reply.json()["code"]) == (403, 2706)

            await daemon.connections(0)
            nursery.start_soon(poll)
            await daemon.connections(1)
            await tool(daemon_files, "agents", change, agent.uuid)
            for reply in (await agent.post_stateful([event(2)]), await agent.get_file("default.conf")):
                assert (reply.status, reply.json()["code"]) == (403, 2706)
        reply = await agent.authenticate()
        expected = (403, "Agent does not exist") if change == "remove" else (401, "Invalid key")
        assert (reply.status, reply.json()["message"]) == expected


# --- large bodies, and small ones sent slowly by the kernel


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_stateless_body_of_100_mib(chunked: bool, daemon_files: Files) -> None:
    async with start_daemon(daemon_files) as daemon:
        agent = await logged_in(daemon, chunked=chunked)
        one = stateless_event("m", "c", {"n": 1, "text": "x" * 100_000})
        room = 100 * 1024 * 1024 - len(agent.metadata)
        events = [one] * (room // len(one))
        reply = await agent.post_stateless(events)
        assert reply.status == 204
        assert memory_of(daemon) < 150 * 1024 * 1024  # it was streamed
        reply = await (agent.post_stateless([*events, one]) if chunked else announce(daemon, agent, 101 * 1024 * 1024))
        assert (reply.status, reply.json()["code"]) == (413, 413)
    assert (await stored(daemon_files))[0] == [1] * len(events)


async def announce(daemon: Running, agent: AgentClient, length: int) -> Reply:
    """A body that is refused at its head: not much of it is read any more, so its sender looks before it writes all."""
    headers = [("Host", "localhost"), ("Authorization", f"Bearer {agent.token}"), ("Content-Length", str(length))]
    async with await open_tls(daemon.connect, agent_tls(), host="localhost") as stream:
        return await exchange(stream, request_head("POST", "/api/v1/events/stateless", headers), (b"x" * 1024**2,))


def memory_of(daemon: Running) -> int:
    """The most it ever had, bytes."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


async def test_a_stateful_body_of_many_megabytes_beside_small_ones(daemon_files: Files) -> None:
    async with start_daemon(daemon_files) as daemon:
        large, small = await logged_in(daemon), await logged_in(daemon)
        events = [event(number, text="x" * 900) for number in range(20_000)]
        async with trio.open_nursery() as nursery:
            done: list[str] = []

            async def post_large() -> None:
                reply = await large.post_stateful(events)
                assert len(reply.json()["results"]) == len(events)
                done.append("large")

            nursery.start_soon(post_large)
            while not done:
                began = trio.current_time()
                assert (await small.post_stateful([event(len(done))])).status == 200
                assert trio.current_time() - began < 5
        assert (await stored(daemon_files))[1].count(f"{large.uuid}_id19999") == 1


async def test_a_request_as_agents_send_it_does_not_wait_for_delayed_acknowledgements(daemon_files: Files) -> None:
    """Nagle's algorithm on, head and body in writes of their own: 40 ms each if the server doesn't acknowledge at
    once.
    """
    async with start_daemon(daemon_files) as daemon:
        agent = await logged_in(daemon)
        seconds = []
        for number in range(40):
            began = trio.current_time()
            assert (await agent.post_stateless([stateless_event("m", "c", {"n": number})])).status == 204
            seconds.append(trio.current_time() - began)
        assert sorted(seconds)[len(seconds) // 4] < 0.035
