"""Opening the embedded backends: on disks that are full, files that are locked, folders that aren't."""

from pathlib import Path

import apsw
import attrs
import pytest

from tests.backends.embedded.notes import complaints
from tests.backends.embedded.small_disk import fill, small_disk
from tests.contract.harness import A1, INDEX, embedded_config, until_it_works
from wazuh_comms_trio.backends.embedded.process_locks import hold_process_lock
from wazuh_comms_trio.backends.factory import StateUnusable, open_backends
from wazuh_comms_trio.backends.interfaces import (
    Action,
    Agent,
    Command,
    CommandReport,
    CommandResult,
    DocumentOperation,
    Target,
)
from wazuh_comms_trio.errors import BackendUnavailable, MalformedRequest
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.opening import open_quarantine

pytestmark = pytest.mark.real_clock


@pytest.mark.expects_errors
async def test_a_full_disk_does_not_keep_the_daemon_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        config = embedded_config(disk)
        async with open_backends(config) as backends, open_quarantine(config):
            await backends.agents.add(Agent(A1, "a", "hash"))
        ballast = fill(disk)
        with pytest.raises(StateUnusable):
            async with open_backends(config):
                pass
        async with (
            open_backends(config, tolerant=True) as backends,
            open_quarantine(config, tolerant=True) as quarantine,
        ):
            with pytest.raises(BackendUnavailable):
                await backends.agents.lookup(A1)
            with pytest.raises(BackendUnavailable):
                await quarantine.add([Rejected(A1, "stateful", "why", b"", b"")])
            assert len(complaints(caplog)) == 2
            ballast.unlink()
            await until_it_works(lambda: backends.events.bulk([DocumentOperation("create", INDEX, "1", b"{}")]))
            assert await backends.agents.lookup(A1) is not None
            await until_it_works(lambda: quarantine.add([Rejected(A1, "stateful", "why", b"", b"")]))


@pytest.mark.expects_errors
async def test_a_new_state_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        config = embedded_config(disk)
        ballast = fill(disk)
        async with open_backends(config, tolerant=True) as backends:
            with pytest.raises(BackendUnavailable):
                await backends.agents.add(Agent(A1, "a", "hash"))
            ballast.unlink()
            await until_it_works(lambda: backends.agents.add(Agent(A1, "a", "hash")))


@pytest.mark.expects_errors
async def test_a_damaged_file_does_not_keep_the_daemon_down(tmp_path: Path) -> None:
    config = embedded_config(tmp_path)
    async with open_backends(config) as backends:
        await backends.agents.add(Agent(A1, "a", "hash"))
    path = tmp_path / "state" / "state.db"
    saved = path.read_bytes()
    path.write_bytes(b"garbage" * 10_000)
    with pytest.raises(StateUnusable, match="damaged"):
        async with open_backends(config):
            pass
    async with open_backends(config, tolerant=True) as backends:
        with pytest.raises(BackendUnavailable):
            await backends.agents.lookup(A1)
        path.write_bytes(saved)
        await until_it_works(lambda: backends.agents.lookup(A1))
        assert await backends.agents.lookup(A1) is not None


@pytest.mark.usefixtures("short_waits")
async def test_a_locked_file_does_not_keep_the_daemon_down(tmp_path: Path) -> None:
    config = embedded_config(tmp_path)
    async with open_backends(config) as backends:
        await backends.agents.add(Agent(A1, "a", "hash"))
    other = apsw.Connection(str(tmp_path / "state" / "state.db"))
    other.execute("BEGIN EXCLUSIVE")
    async with open_backends(config) as backends:
        assert await backends.agents.lookup(A1) is not None
        with pytest.raises(BackendUnavailable):
            await backends.agents.remove(A1)
        other.execute("COMMIT")
        assert await backends.agents.remove(A1)
    other.close()


@pytest.mark.parametrize("name", ["state", "state/owners", "state/events", "state/state.db", "state/quarantine"])
async def test_something_else_stands_in_its_place(tmp_path: Path, name: str) -> None:
    config = embedded_config(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix:
        path.mkdir()
    else:
        path.touch()
    with pytest.raises(StateUnusable) as caught:
        async with open_backends(config), open_quarantine(config):
            pass
    assert str(tmp_path) in caught.value.message


async def test_it_is_made_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    config = embedded_config(tmp_path)
    folder = tmp_path / "not" / "yet" / "there"
    api = attrs.evolve(
        config.communications_api, embedded=attrs.evolve(config.communications_api.embedded, path=folder)
    )
    async with open_backends(attrs.evolve(config, communications_api=api)) as backends:
        await backends.agents.add(Agent(A1, "a", "hash"))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o755


def test_who_is_alive(tmp_path: Path) -> None:
    folder = tmp_path / "owners"
    with hold_process_lock(folder) as one:
        with hold_process_lock(folder) as other:
            assert not one.has_ended(other.token)
            assert not other.has_ended(one.token)
            assert not one.has_ended(one.token)
        assert one.has_ended(other.token)
        killed, killed_too = f"1-{'0' * 16}", f"2-{'0' * 16}"
        (folder / killed).touch()
        assert one.has_ended(killed)
        (folder / killed_too).touch()
        (folder / "somebody else's").touch()
        with hold_process_lock(folder) as third:
            assert {path.name for path in folder.iterdir()} == {one.token, third.token, "somebody else's"}
            assert not third.has_ended(one.token)


async def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    """JSON's escapes make halves of surrogate pairs, the command line makes others: nothing has such a name."""
    bad = "\ud800"
    async with open_backends(embedded_config(tmp_path)) as backends:
        agents, events, commands = backends.agents, backends.events, backends.commands
        for agent in (Agent(bad, "a", "hash"), Agent(A1, bad, "hash")):
            with pytest.raises(MalformedRequest):
                await agents.add(agent)
        assert await agents.get(bad) is None
        assert await agents.lookup(bad) is None
        assert list(await agents.revoked({bad: "0"})) == [bad]
        assert not await agents.remove(bad)
        assert not await agents.rekey(bad, "x")
        await agents.record_login(bad, 1.0)
        assert list(await agents.members(bad)) == []
        results = await events.bulk(
            [DocumentOperation("create", INDEX, name, b"{}") for name in ("1", bad, "2")]
            + [DocumentOperation("delete", bad, "1")]
        )
        assert [result.status for result in results] == [201, 400, 201, 400]
        assert await events.get(INDEX, bad) is None
        with pytest.raises(MalformedRequest):
            await commands.add([Command(bad, Target("agent", A1), Action("restart"))])
        assert await commands.get(bad) is None
        assert await commands.cancel(bad) is None
        assert list(await commands.list(agent_id=bad)) == []
        assert list(await commands.claim([bad])) == []
        (result,) = await commands.report([CommandReport(A1, bad, CommandResult(0))])
        assert result.status == 404  # no command has such an id
        data = {"lone": bad, "nul": "\0"}
        await commands.add([Command("c1", Target("agent", A1), Action("restart", None, data))])
        (claimed,) = await commands.claim([A1])
        assert claimed.action.args == data


async def test_ids_with_nul(tmp_path: Path) -> None:
    async with open_backends(embedded_config(tmp_path)) as backends:
        names = ["a", "a\0", "a\0b", "\0"]
        for status in (201, 200):
            results = await backends.events.bulk([DocumentOperation("create", INDEX, n, b"{}") for n in names])
            assert [result.status for result in results] == [status] * 4
        results = await backends.events.bulk([DocumentOperation("delete", INDEX, n) for n in names])
        assert [result.status for result in results] == [200] * 4
