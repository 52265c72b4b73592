"""A reload under load: new workers with a new configuration, and no request fails."""

from __future__ import annotations

import json
import os
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
import trio
import trustme

from tests.conftest import Certificates
from tests.e2e.agents import WRONG, stored
from tests.e2e.processes import PROGRAMS, Files, Running, start_daemon, tool
from tests.supervisor.nodes import ask, change, ended, kill, parked, serving, status, under_load
from wazuh_comms_trio.testing import AgentClient, Reply, agent_tls, connect_tcp, enroll, open_tls, stateful_event

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]


def new_certificate(folder: Path) -> dict[str, str]:
    """The ``ssl`` section with a new key and a new certificate."""
    issued = trustme.CA().issue_cert("localhost")
    key, cert = folder / "new.key", folder / "new.pem"
    key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(cert)
    return {"key": str(key), "cert": str(cert)}


def read(file: str) -> str:
    return Path(file).read_text()


def spoil(*files: str) -> None:
    for file in files:
        Path(file).write_text("-----BEGIN")


async def presented(daemon: Running) -> str:
    """The certificate that is shown to agents now, PEM."""
    stream = await open_tls(daemon.connect, agent_tls(), host="localhost")
    der = stream.getpeercert(binary_form=True)
    await stream.aclose()
    return ssl.DER_cert_to_PEM_cert(der)


async def reload(files: Files) -> tuple[int, str]:
    """By the tool: its exit status and what it said."""
    done = await trio.run_process(
        [str(PROGRAMS / "wazuh-comms"), "--config", str(files.config), "reload"],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode()


async def test_reloads_under_load_fail_no_request(make_files: MakeFiles, certificates: Certificates) -> None:
    files = make_files(token={"private_key": str(certificates.client_key)})
    async with start_daemon(files, expect_errors=True) as daemon:
        before = await serving(files, 2)
        async with under_load(daemon) as load:
            await load.more(20)

            # A new certificate.
            section = new_certificate(files.folder)
            change(files, ssl=section)
            code, said = await reload(files)
            assert (code, said) == (0, "The configuration is in force.\n")
            new = await serving(files, 2, generation=2)
            assert not set(before) & set(new)
            assert await presented(daemon) == read(section["cert"])
            await load.more(20)

            # Another number of workers, by SIGHUP.
            change(files, workers=3)
            daemon.process.send_signal(signal.SIGHUP)
            await serving(files, 3, generation=3)
            await load.more(20)

            # What can't be used changes nothing, and says why.
            change(files, batcher={"max_elements": "many"})
            code, said = await reload(files)
            assert code == 1
            assert "communications_api.batcher.max_elements" in said
            change(files, batcher={}, ssl={**section, "cert": str(certificates.cert)})
            code, said = await reload(files)
            assert code == 1
            assert "isn't the key of the certificate" in said
            same = await serving(files, 3, generation=3)
            await load.more(20)

            # What needs a restart is named.
            change(files, ssl=section, port=1, workers=2)
            code, said = await reload(files)
            assert code == 0
            assert "communications_api.port has changed; that needs a restart" in said
            assert not set(same) & set(await serving(files, 2, generation=4))
            await load.more(20)
        assert load.failed == []
        assert load.requests > 100
    numbers, documents = await stored(files)
    assert load.acknowledged == set(documents)
    assert load.stateless == set(numbers)


async def test_tokens_of_the_key_before_stay_good(make_files: MakeFiles) -> None:
    files = make_files()
    async with start_daemon(files) as daemon:
        (agent,) = await daemon.add_agents(1)
        assert (await agent.authenticate()).status == 200
        for generation in (2, 3):  # the key's tokens are signed with is the TLS key
            change(files, ssl=new_certificate(files.folder))
            assert (await ask(files, "POST", "/api/v1/reload")).json()["reloaded"] is True
            await serving(files, 2, generation=generation)
        for number in range(8):  # whichever worker takes it
            assert (await agent.post_stateful([stateful_event(f"id{number}", "fim", "create", {"a": 1})])).status == 200
        newer = daemon.client(agent.uuid, agent.key)
        assert (await newer.authenticate()).status == 200
        assert newer.token != agent.token


async def test_a_worker_that_is_replaced_has_the_others_keys(make_files: MakeFiles) -> None:
    """The files may be half written when it starts; they count from the next reload on."""
    files = make_files()
    key, cert = new_certificate(files.folder).values()
    change(files, ssl={"key": key, "cert": cert})
    async with start_daemon(files, expect_errors=True) as daemon:
        pids = await serving(files, 2)
        (agent,) = await daemon.add_agents(1)
        assert (await agent.authenticate()).status == 200
        certificate = await presented(daemon)
        spoil(key, cert)
        for pid in pids:
            kill(pid)
            with trio.fail_after(20):
                await serving(files, 2, but=pid)
        assert await presented(daemon) == certificate
        assert (await agent.get_file("none.conf")).status == 404


async def test_parked_polls_are_answered_and_slow_requests_finish(make_files: MakeFiles) -> None:
    files = make_files(shutdown={"grace": 1})
    async with start_daemon(files) as daemon:
        agents = await daemon.add_agents(6)
        for agent in agents:
            await agent.authenticate()
        old = await serving(files, 2)
        replies: list[Reply] = []

        async def poll(agent: AgentClient) -> None:
            replies.append(await agent.poll())

        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(poll, agent)
            await parked(files, 6)
            # A connection that has said nothing yet is one that may still do so.
            slow = await open_tls(daemon.connect, agent_tls(), host="localhost")
            outcome = (await ask(files, "POST", "/api/v1/reload")).json()
            assert outcome == {"reloaded": True, "problems": [], "warnings": [], "needs_restart": []}
        assert [reply.status for reply in replies] == [408] * 6
        await trio.sleep(1.5)  # longer than shutdown.grace: this isn't a shutdown
        await slow.send_all(b"GET /api/v1/ HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await slow.receive_some(100)).startswith(b"HTTP/1.1 200")
        await trio.aclose_forcefully(slow)
        with trio.fail_after(5):
            for pid in old:
                await ended(pid)
        # In the audit log, with who did it.
        entries = [json.loads(line) for line in (files.state / "audit.log").read_text().splitlines()]
        (entry,) = [entry for entry in entries if entry["action"] == "reload"]
        assert entry["uid"] == os.getuid()


async def test_signals_during_a_reload_are_one_more(make_files: MakeFiles) -> None:
    """What was changed since the files were read counts as well."""
    files = make_files()
    async with start_daemon(files, expect_errors=True) as daemon:
        await serving(files, 2)
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.wait_for_line("SIGHUP: reloading")
        assert (await ask(files, "POST", "/api/v1/reload")).json()["problems"] == ["A reload is under way"]
        change(files, workers=3)
        for _ in range(3):
            daemon.process.send_signal(signal.SIGHUP)
        with trio.fail_after(20):
            await serving(files, 3, generation=3)
        assert (await status(files))["generation"] == 3
        assert sum(": reloaded: " in line for line in daemon.log) == 2


async def test_a_stop_during_a_reload(make_files: MakeFiles) -> None:
    files = make_files()
    async with start_daemon(files, expect_errors=True) as daemon:
        await serving(files, 2)
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.wait_for_line("SIGHUP: reloading")
        daemon.process.send_signal(signal.SIGTERM)
        with trio.fail_after(10):
            assert await daemon.process.wait() == 0


async def test_new_workers_that_cant_start_change_nothing(make_files: MakeFiles) -> None:
    files = make_files()
    async with start_daemon(files, expect_errors=True):
        pids = await serving(files, 2)
        blocked = files.folder / "blocked"
        blocked.write_text("not a folder")
        change(files, embedded={"path": str(blocked)})
        outcome = (await ask(files, "POST", "/api/v1/reload")).json()
        assert outcome["reloaded"] is False
        assert str(blocked) in outcome["problems"][0]
        assert sorted(await serving(files, 2, generation=1)) == sorted(pids)
        assert (await status(files))["generation"] == 1


async def test_what_needs_a_restart_is_measured_by_what_is_listened_on(make_files: MakeFiles) -> None:
    enrollment = {"host": "127.0.0.1", "port": 0}
    files = make_files(enrollment=enrollment)
    async with start_daemon(files) as daemon:
        assert daemon.enrollment_port is not None
        connect = connect_tcp("127.0.0.1", daemon.enrollment_port)

        async def join() -> int:
            return (await enroll(connect, user="a", password=WRONG, uuid=str(uuid4()), key="k" * 32)).status

        await serving(files, 2)
        # The section goes, its listener stays: nobody waits there without an answer.
        change(files, enrollment=None, port=1)
        outcome = (await ask(files, "POST", "/api/v1/reload")).json()
        named = [f"communications_api.{key}" for key in ("port", "enrollment.host", "enrollment.port")]
        assert (outcome["reloaded"], outcome["needs_restart"]) == (True, named)
        await serving(files, 2, generation=2)
        with trio.fail_after(5):
            assert await join() == 401
        # Still not in force, and then as it was.
        outcome = (await ask(files, "POST", "/api/v1/reload")).json()
        assert outcome["needs_restart"] == named
        change(files, enrollment=enrollment, port=0)
        outcome = (await ask(files, "POST", "/api/v1/reload")).json()
        assert (outcome["reloaded"], outcome["needs_restart"]) == (True, [])
        with trio.fail_after(5):
            assert await join() == 401


async def test_one_worker_says_that_it_cant_reload(make_files: MakeFiles) -> None:
    files = make_files(workers=1)
    async with start_daemon(files) as daemon:
        code, said = await reload(files)
        assert code == 1
        assert "`workers`" in said
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.wait_for_line("SIGHUP: .*restart")
        assert (await tool(files, "status"))["reload"] is False


async def test_log_ins_during_a_reload_with_another_key(make_files: MakeFiles) -> None:
    """A new worker's token may come to an old one before that stops."""
    files = make_files()
    async with start_daemon(files) as daemon:
        await serving(files, 2)
        (agent,) = await daemon.add_agents(1)
        refused, done = [], trio.Event()

        async def log_in_and_on() -> None:
            while not done.is_set():
                client = daemon.client(agent.uuid, agent.key)
                assert (await client.authenticate()).status == 200
                for _ in range(2):
                    reply = await client.get_file("none.conf")
                    if reply.status != 404:
                        refused.append(reply.status)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(log_in_and_on)
            change(files, ssl=new_certificate(files.folder))
            assert (await ask(files, "POST", "/api/v1/reload")).json()["reloaded"] is True
            await serving(files, 2, generation=2)
            done.set()
        assert refused == []
