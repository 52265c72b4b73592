"""Another version is installed while the daemon runs, and two versions side by side on one state."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import apsw
import pytest
import trio

from tests.conftest import Certificates
from tests.e2e.agents import stored
from tests.e2e.processes import Files, Running, command_line, start_daemon, tool, write_files
from tests.supervisor.nodes import add_logged_in, ask, parked, post, reload, serving, status, under_load
from tests.upgrade.versions import install
from wazuh_comms_trio.backends.embedded.state_schema import STATE
from wazuh_comms_trio.quarantine.schema import QUARANTINE
from wazuh_comms_trio.testing import AgentClient, stateful_event, stateless_event

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def schema_of(files: Files) -> int:
    connection = apsw.Connection(str(files.state / "state.db"), apsw.SQLITE_OPEN_READONLY)
    version = connection.execute("PRAGMA user_version").get
    connection.close()
    assert isinstance(version, int)
    return version


async def later_workers(files: Files) -> list[bool]:
    """Of each worker, whether it is the later version's."""
    found = (await status(files))["workers"]
    return [worker.get("later", False) for worker in found]


async def delivered(daemon: Running, agents: list[AgentClient], names: list[str]) -> None:
    """Each of the agents gets its command, and whoever posts is told so."""
    got: list[str] = []

    async def poll(agent: AgentClient) -> None:
        reply = await agent.poll()
        got.extend(command["document_id"] for command in reply.json()["commands"])

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for agent in agents:
                nursery.start_soon(poll, agent)
            await parked(daemon.files, len(agents))
            told = await post(daemon.files, [(name, agent.uuid) for name, agent in zip(names, agents, strict=True)])
    assert sorted(got) == sorted(names)
    assert told == set(names)


async def test_a_later_version_by_reload_under_load_and_back(make_files: MakeFiles, site: Path) -> None:
    files = make_files()
    async with start_daemon(files, environment=install(site)) as daemon:
        await serving(files, 2)
        agents = await add_logged_in(daemon, 4)
        await delivered(daemon, agents, ["before 1", "before 2", "before 3", "before 4"])
        assert await later_workers(files) == [False, False]
        async with under_load(daemon) as load:
            await load.more(20)
            install(site, later=True)
            await load.more(20)
            assert (await reload(files))["reloaded"] is True
            await serving(files, 2, generation=2)
            assert await later_workers(files) == [True, True]
            await load.more(20)
            await delivered(daemon, agents, ["later 1", "later 2", "later 3", "later 4"])
            # The later one wasn't liked.
            install(site)
            assert (await reload(files))["reloaded"] is True
            await serving(files, 2, generation=3)
            assert await later_workers(files) == [False, False]
            await load.more(20)
            await delivered(daemon, agents, ["again 1", "again 2", "again 3", "again 4"])
        assert load.failed == []
    assert schema_of(files) == STATE.version + 1
    numbers, documents = await stored(files)
    assert load.acknowledged == set(documents)
    assert load.stateless == set(numbers)


async def test_later_workers_that_cant_start_change_nothing(make_files: MakeFiles, site: Path) -> None:
    """Half an installation, for example."""
    files = make_files()
    async with start_daemon(files, environment=install(site), expect_errors=True) as daemon:
        pids = await serving(files, 2)
        async with under_load(daemon) as load:
            await load.more(10)
            (site / "wazuh_comms_trio/daemon/worker/tree.py").write_text("raise SystemExit('not installed yet')")
            outcome = await reload(files)
            assert outcome["reloaded"] is False
            assert "a worker can't start (2 times): " in outcome["problems"][0]
            assert sorted(await serving(files, 2, generation=1)) == sorted(pids)
            await load.more(10)
            install(site)
            assert (await reload(files))["reloaded"] is True
            await load.more(10)
        assert load.failed == []


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_running_daemon_needs_its_files_no_more(workers: int, make_files: MakeFiles, site: Path) -> None:
    """What it would load later might be another version's by then."""
    files = make_files(workers=workers)
    async with start_daemon(files, environment=install(site)) as daemon:
        await serving(files, workers)
        (agent,) = await daemon.add_agents(1)
        shutil.rmtree(site)
        assert (await agent.authenticate()).status == 200
        assert (await agent.alive()).status == 200
        assert (await agent.get_file("none.conf")).status == 404
        assert (await agent.scan({"nothing": True})).status in (200, 400, 500, 503)
        refused = b'{"module":"fim","index":"wazuh-states-fim"}\n{'
        assert (await agent.post_stateful([stateful_event("a", "fim", "create", {"n": 1}), refused])).status == 200
        assert (await agent.post_stateless([stateless_event("m", "c", {"n": 1})])).status == 204
        await delivered(daemon, [agent], ["1"])
        assert (await agent.report("1", 200)).status == 200
        assert (await ask(files, "GET", "/api/v1/status")).status == 200
        assert (await ask(files, "POST", "/api/v1/commands", b"nonsense")).status == 400
        assert (await tool(files, "status"))["problems"] == []
        daemon.process.send_signal(signal.SIGTERM)
        with trio.fail_after(10):
            assert await daemon.process.wait() == 0


async def test_two_versions_side_by_side(tmp_path: Path, certificates: Certificates, site: Path) -> None:
    """Two daemons on one state: whoever came later has brought the database up to date."""
    folders = [tmp_path / name for name in ("earlier", "later")]
    for folder in (*folders, site / "later"):
        folder.mkdir()
    files = [
        write_files(folder, certificates.cert, certificates.key, workers=2, embedded={"path": str(tmp_path / "state")})
        for folder in folders
    ]
    environments = [install(site), install(site / "later", later=True)]
    async with AsyncExitStack() as stack:
        daemons = [
            await stack.enter_async_context(start_daemon(each, environment=environment))
            for each, environment in zip(files, environments, strict=True)
        ]
        for each in files:
            await serving(each, 2)
        assert await later_workers(files[0]) == [False, False]
        assert await later_workers(files[1]) == [True, True]
        agents = await add_logged_in(daemons[0], 4)
        here, there = agents, [daemons[1].client(agent.uuid, agent.key) for agent in agents]
        for agent, twin in zip(here, there, strict=True):
            twin.token = agent.token
        # Parked at one, posted to the other.
        for poster, polled, clients in ((0, 1, there), (1, 0, here)):
            names = [f"{poster} {number}" for number in range(4)]
            got: list[str] = []

            async def poll(client: AgentClient, got: list[str]) -> None:
                reply = await client.poll()
                got.extend(command["document_id"] for command in reply.json()["commands"])

            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    for client in clients:
                        nursery.start_soon(poll, client, got)
                    await parked(files[polled], 4)
                    await post(
                        files[poster], [(name, client.uuid) for name, client in zip(names, clients, strict=True)]
                    )
            assert sorted(got) == names
        for clients in (here, there):
            event = stateful_event("same", "fim", "create", {"n": 1})
            replies = [await client.post_stateful([event]) for client in clients]
            assert [reply.status for reply in replies] == [200] * 4
    _, documents = await stored(files[0])
    assert sorted(documents) == sorted(f"{agent.uuid}_same" for agent in agents)


def test_within_a_major_version_every_program_can_use_every_file() -> None:
    """A migration that older programs can't live with needs a new major version: this test changes with that only."""
    for schema in (STATE, QUARANTINE):
        assert {migration.usable_since for migration in schema.migrations} == {1}


@pytest.mark.parametrize(("file", "workers"), [("state.db", 1), ("state.db", 2), ("quarantine/quarantine.db", 1)])
async def test_what_a_newer_version_keeps_for_itself_is_78(file: str, workers: int, make_files: MakeFiles) -> None:
    files = make_files(workers=workers)
    async with start_daemon(files):
        pass
    with apsw.Connection(str(files.state / file)) as connection:
        connection.execute("UPDATE compatibility SET usable_since = 9; PRAGMA user_version = 9")
    connection.close()
    program = await trio.run_process(command_line(files), capture_stderr=True, check=False)
    log = program.stderr.decode()
    assert program.returncode == 78
    known = len((STATE if file == "state.db" else QUARANTINE).migrations)
    assert f"written by a newer version of this program (schema 9, this one knows {known}" in log
    assert "Traceback" not in log
