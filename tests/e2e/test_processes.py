"""Real daemons as processes, on embedded backends, with real agents' requests over TCP."""

from __future__ import annotations

import json
import resource
import signal
import socket
import sqlite3
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from tests.conftest import Certificates
from tests.e2e.processes import PROGRAMS, Files, Running, command_line, start_daemon, tool, write_files
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
    stateful_event,
    stateless_event,
)

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

PASSWORD, WRONG = "correct horse", "wrong"
SCAN = {"type": "packagelist", "agent": {"id": "a"}, "packages": [], "hotfixes": []}


async def logged_in(daemon: Running, **options: Any) -> AgentClient:
    (agent,) = await daemon.add_agents(1, **options)
    assert (await agent.authenticate()).status == 200
    return agent


def event(number: int, **data: Any) -> bytes:
    return stateful_event(f"id{number}", "fim", "create", {"file": {"path": f"/{number}"}, **data})


def find(document: Any, name: str) -> list[Any]:
    """The values of that key, wherever they are."""
    if isinstance(document, dict):
        own = [document[name]] if name in document else []
        return own + [found for key, value in document.items() if key != name for found in find(value, name)]
    if isinstance(document, list):
        return [found for value in document for found in find(value, name)]
    return []


async def stored(files: Files) -> tuple[list[int], list[str]]:
    """What the engine and the index hold, as the tool shows it: the events' ``n``, and the ids of documents."""
    program = str(PROGRAMS / "wazuh-comms")
    done = await trio.run_process(
        [program, "--config", str(files.config), "--json", "events", "tail"], capture_stdout=True
    )
    items = [json.loads(line) for line in done.stdout.splitlines()]
    numbers = [item["data"]["n"] for item in items if item["kind"] == "stateless"]
    return sorted(numbers), sorted(item["document_id"] for item in items if item["kind"] != "stateless")


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


# --- nothing acknowledged is lost


async def test_kill_9_straight_after_the_answers_loses_nothing(daemon_files: Files) -> None:
    acknowledged: set[str] = set()
    stateless: set[int] = set()
    async with start_daemon(daemon_files) as daemon:
        agents = [await logged_in(daemon) for _ in range(4)]

        async def post(agent: AgentClient, first: int) -> None:
            for number in range(first, first + 10):
                assert (await agent.post_stateful([event(number)])).status == 200
                acknowledged.add(f"{agent.uuid}_id{number}")
                assert (await agent.post_stateless([stateless_event("m", "c", {"n": number})])).status == 204
                stateless.add(number)

        async with trio.open_nursery() as nursery:
            for index, agent in enumerate(agents):
                nursery.start_soon(post, agent, index * 100)
        daemon.process.kill()
        await daemon.process.wait()
    assert len(acknowledged) == 40
    async with start_daemon(daemon_files) as daemon:
        agent = daemon.client(agents[0].uuid, agents[0].key)
        assert (await agent.authenticate()).status == 200
        # Sent again, as an agent that didn't hear the answer does: known, not doubled.
        reply = await agent.post_stateful([event(0)])
        assert reply.json()["results"][0]["status"] == 200
    assert await stored(daemon_files) == (sorted(stateless), sorted(acknowledged))


async def test_kill_9_straight_after_the_answer_leaves_what_was_refused_in_the_quarantine(daemon_files: Files) -> None:
    async with start_daemon(daemon_files) as daemon:
        agent = await logged_in(daemon)
        reply = await agent.post_stateful([b'{"id":"x","module":"mystery","operation":"create"}\n{"a":1}\n'])
        assert [result["status"] for result in reply.json()["results"]] == [400]
        daemon.process.kill()
        await daemon.process.wait()
    assert find(await tool(daemon_files, "quarantine", "list"), "agent_id") == [agent.uuid]


async def test_a_command_is_not_lost_when_the_daemon_is_killed_while_handing_it_over(daemon_files: Files) -> None:
    """It comes again with the same id where the mark wasn't stored, and not at all where it was."""
    async with start_daemon(daemon_files) as daemon:
        agent = await logged_in(daemon)
        async with trio.open_nursery() as nursery:
            replies: list[Reply] = []

            async def poll() -> None:
                replies.append(await agent.poll())
                daemon.process.kill()

            await daemon.connections(0)
            nursery.start_soon(poll)
            await daemon.connections(1)
            command = {
                "document_id": "c1",
                "target": {"type": "agent", "id": agent.uuid},
                "action": {"name": "restart"},
            }
            with suppress(ExchangeFailed):
                await post_commands(daemon_files, [command])
        await daemon.process.wait()
    assert find(replies[0].json(), "document_id") == ["c1"]
    async with start_daemon(daemon_files) as daemon:
        agent = daemon.client(agent.uuid, agent.key)
        assert (await agent.authenticate()).status == 200
        (status,) = find(await tool(daemon_files, "commands", "show", "c1"), "status")
        if status == "pending":
            assert find((await agent.poll()).json(), "document_id") == ["c1"]
        assert (await agent.report("c1", 0)).json()["results"][0]["status"] == 200
        assert find(await tool(daemon_files, "commands", "show", "c1"), "status") == ["success"]
        assert (await agent.report("c1", 1)).json()["results"][0]["status"] == 200  # of its second delivery
        assert find(await tool(daemon_files, "commands", "show", "c1"), "status") == ["success"]


async def post_commands(files: Files, commands: list[dict[str, Any]]) -> Reply:
    body = json.dumps({"commands": commands}).encode()
    head = request_head("POST", "/api/v1/commands", [("Host", "h"), ("Content-Length", str(len(body)))])
    async with await trio.open_unix_socket(str(files.socket)) as stream:
        return await exchange(stream, head, (body,))


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


# --- what stands behind it fails, and comes back


@contextmanager
def lock(files: Files) -> Iterator[None]:
    """Another program holds the database's write lock."""
    database = sqlite3.connect(files.state / "state.db", isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")
    finally:
        database.close()


async def test_a_locked_database_is_a_503_and_service_resumes(tmp_path: Path, certificates: Certificates) -> None:
    limits = {"stateful": 2}
    files = write_files(tmp_path, certificates.cert, certificates.key, timeouts=limits)
    async with start_daemon(files, expect_errors=True) as daemon:
        agent = await logged_in(daemon)
        with lock(files):
            reply = await agent.post_stateful([event(1)])
            assert (reply.status, reply.json()["code"]) == (503, 503)
            # What doesn't write to it goes on.
            assert (await agent.post_stateless([stateless_event("m", "c", {"n": 1})])).status == 204
        reply = await until_taken(lambda: agent.post_stateful([event(1)]))
        assert reply.json()["results"][0]["status"] in (200, 201)
        assert len([line for line in daemon.log if " ERROR " in line]) <= 1
        assert not [line for line in daemon.log if line.startswith("Traceback")]


async def until_taken(post: Callable[[], Awaitable[Reply]]) -> Reply:
    """As an agent: again and again. The cause is gone, so that it must not take long."""
    with trio.fail_after(20):
        while (reply := await post()).status == 503:  # noqa: ASYNC110 - as agents do
            await trio.sleep(0.1)
    return reply


async def test_a_full_disk_is_a_503_and_service_resumes(tmp_path: Path, certificates: Certificates) -> None:
    """No file of the daemon's may grow: what a full disk looks like to it."""
    files = write_files(tmp_path, certificates.cert, certificates.key, timeouts={"stateful": 2, "stateless": 2})
    async with start_daemon(files, expect_errors=True) as daemon:
        agent = await logged_in(daemon)
        news = stateless_event("m", "c", {"n": 1, "text": "x" * 5000})
        state = event(1, text="x" * 200_000)
        unlimited = resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (100, unlimited[1]))
        for _ in range(3):
            assert (await agent.post_stateless([news])).status == 503
            assert (await agent.post_stateful([state])).status == 503
        assert (await agent.alive()).status == 200
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, unlimited)
        assert (await until_taken(lambda: agent.post_stateless([news]))).status == 204
        assert (await until_taken(lambda: agent.post_stateful([state]))).status == 200
        assert not [line for line in daemon.log if line.startswith("Traceback")]
        assert len([line for line in daemon.log if " ERROR " in line]) <= 4
    assert await stored(files) == ([1], [f"{agent.uuid}_id1"])


async def test_a_damaged_database_is_a_503_and_no_crash(daemon_files: Files) -> None:
    async with start_daemon(daemon_files, expect_errors=True) as daemon:
        agent = await logged_in(daemon)
        assert (await agent.post_stateful([event(1)])).status == 200
        for name in ("state.db", "state.db-wal"):
            (daemon_files.state / name).write_bytes(b"garbage" * 10_000)
        statuses = {(await agent.post_stateful([event(number)])).status for number in range(2, 4)}
        assert statuses == {503}
        assert daemon.process.returncode is None
        assert (await agent.alive()).status == 200
        assert not [line for line in daemon.log if line.startswith("Traceback")]


async def test_with_a_damaged_database_it_starts_and_resumes_when_that_is_repaired(daemon_files: Files) -> None:
    async with start_daemon(daemon_files) as daemon:
        agent = await logged_in(daemon)
    database = daemon_files.state / "state.db"
    sound = database.read_bytes()
    database.write_bytes(b"garbage" * 10_000)
    async with start_daemon(daemon_files, expect_errors=True) as daemon:
        agent = daemon.client(agent.uuid, agent.key)
        assert (await agent.alive()).status == 200
        assert (await agent.authenticate()).status == 503
        assert len([line for line in daemon.log if "state.db" in line]) == 1
        assert not [line for line in daemon.log if line.startswith("Traceback")]
        database.write_bytes(sound)
        assert (await until_taken(agent.authenticate)).status == 200


async def fails_to_start(files: Files) -> str:
    with trio.fail_after(30):
        done = await trio.run_process(command_line(files), capture_stderr=True, check=False)
    log = done.stderr.decode()
    assert done.returncode == 1
    assert "Traceback" not in log
    assert len([line for line in log.splitlines() if "CRITICAL" in line]) == 1
    return log


async def test_a_busy_port_is_one_clear_line(tmp_path: Path, certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        files = write_files(tmp_path, certificates.cert, certificates.key, port=port)
        log = await fails_to_start(files)
    assert f"can't listen on 127.0.0.1:{port}: another program uses this port" in log


# --- the command socket


async def test_the_command_sockets_mode_and_its_life(daemon_files: Files) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(daemon_files.socket))
    stale.close()  # what a killed daemon leaves behind
    async with start_daemon(daemon_files):
        assert stat.S_IMODE(daemon_files.socket.stat().st_mode) == 0o660
        log = await fails_to_start(daemon_files)  # a second one
        assert "is the daemon running already?" in log
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(daemon_files.socket))  # the first one's is untouched
    assert not daemon_files.socket.exists()


async def test_another_file_in_the_sockets_place_is_left_alone(daemon_files: Files) -> None:
    daemon_files.socket.write_text("precious")
    assert "isn't a socket" in await fails_to_start(daemon_files)
    assert daemon_files.socket.read_text() == "precious"


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
