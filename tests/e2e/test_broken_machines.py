"""Real daemons as processes that are killed, or whose disk, database, port or socket isn't as it should be."""

from __future__ import annotations

import json
import resource
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.agents import event, find, lock, logged_in, stored
from tests.e2e.processes import Files, command_line, start_daemon, tool, write_files
from wazuh_comms_trio.testing import AgentClient, ExchangeFailed, Reply, exchange, request_head, stateless_event

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

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
