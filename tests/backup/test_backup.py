"""Backup and restore of embedded state."""

import json
import os
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import attrs
import pytest

from tests.contract.harness import A1, A2, INDEX, embedded_config, stored_bodies
from wazuh_comms_trio.backends.embedded.state_schema import STATE
from wazuh_comms_trio.backends.factory import StateUnusable, open_backends
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, DocumentOperation, Target
from wazuh_comms_trio.backup.create import BackupError, backup, restore
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.opening import open_quarantine

pytestmark = pytest.mark.real_clock

BODY = b'{"agent":{}}\n{"m":1}\n{"d":1}\n'
LARGE = b"x" * 1_000_000


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def fill(config: Config) -> None:
    async with open_backends(config) as backends, open_quarantine(config) as quarantine:
        await backends.agents.add(Agent(A1, "a", "hash", groups=("g",)))
        await backends.events.bulk([DocumentOperation("create", INDEX, "1", b'{"n":1}')])
        await backends.commands.add([Command("c1", Target("agent", A1), Action("restart"))])
        await backends.commands.claim([A1])
        await backends.engine.send_events(pieces(BODY), agent_id=A1, length=None)
        await quarantine.add(
            [Rejected(A1, "stateful", "why", b"m", b"small"), Rejected(A1, "stateless", "why", b"", LARGE)]
        )


async def check(config: Config) -> None:
    async with open_backends(config) as backends, open_quarantine(config) as quarantine:
        agent = await backends.agents.get(A1)
        assert agent is not None
        assert agent.groups == ("g",)
        assert await backends.agents.get(A2) is None
        assert await backends.events.get(INDEX, "1") == b'{"n":1}'
        await backends.commands.expire()  # the claim's holder is gone
        assert [command.document_id for command in await backends.commands.claim([A1])] == ["c1"]
        entries = await quarantine.list()
        found = [await quarantine.get(entry.id) for entry in entries]
        assert [item[1].payload for item in found if item is not None] == [b"small", LARGE]
    assert stored_bodies(config.communications_api.embedded.path) == [(A1, BODY)]


@pytest.fixture
async def config(tmp_path: Path) -> Config:
    config = embedded_config(tmp_path)
    await fill(config)
    return config


async def test_it_comes_back_on_another_machine(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    contents = backup(config, file)
    assert os.stat(file).st_mode & 0o777 == 0o600
    assert {member.name for member in contents.members} >= {"state.db", "quarantine/quarantine.db"}
    other = embedded_config(tmp_path / "other")
    assert restore(other, file) == contents
    await check(other)
    leftovers = set(os.listdir(tmp_path / "other" / "state"))
    marks = {".state.db.made", ".quarantine.db.made"}
    assert leftovers <= {"state.db", "events", "quarantine", "owners", "state.lock"} | marks
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


async def test_while_the_daemon_runs(config: Config, tmp_path: Path) -> None:
    async with open_backends(config) as backends, open_quarantine(config):
        await backends.events.bulk([DocumentOperation("create", INDEX, "2", b"{}")])
        backup(config, tmp_path / "backup.tar")
        await backends.events.bulk([DocumentOperation("create", INDEX, "3", b"{}")])
        with pytest.raises(StateUnusable, match="uses it"):
            restore(config, tmp_path / "backup.tar", replace=True)
    restore(config, tmp_path / "backup.tar", replace=True)
    async with open_backends(config) as backends:
        assert await backends.events.get(INDEX, "2") == b"{}"
        assert await backends.events.get(INDEX, "3") is None


async def test_state_is_replaced_only_when_asked(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    backup(config, file)
    async with open_backends(config) as backends, open_quarantine(config) as quarantine:
        await backends.agents.add(Agent(A2, "b", "hash"))
        await backends.engine.send_events(pieces(BODY), agent_id=A2, length=None)
        await quarantine.add([Rejected(A2, "stateless", "why", b"", LARGE + b"y")])
    with pytest.raises(BackupError, match="holds state already"):
        restore(config, file)
    restore(config, file, replace=True)
    await check(config)


async def test_a_quarantine_elsewhere(tmp_path: Path) -> None:
    config = embedded_config(tmp_path)
    api = config.communications_api
    config = attrs.evolve(
        config,
        communications_api=attrs.evolve(
            api, quarantine=attrs.evolve(api.quarantine, path=tmp_path / "elsewhere" / "q")
        ),
    )
    await fill(config)
    backup(config, tmp_path / "backup.tar")
    restore(config, tmp_path / "backup.tar", replace=True)
    await check(config)


async def test_the_audit_log_is_kept(config: Config, tmp_path: Path) -> None:
    log = config.communications_api.embedded.path / "audit.log"
    log.write_text("first\n")
    backup(config, tmp_path / "backup.tar")
    log.write_text("first\nsecond\n")
    restore(config, tmp_path / "backup.tar", replace=True)
    assert log.read_text() == "first\nsecond\n"
    log.unlink()
    restore(config, tmp_path / "backup.tar", replace=True)
    assert log.read_text() == "first\n"


async def test_an_interrupted_restore_is_finished(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    backup(config, file)
    folder = config.communications_api.embedded.path
    (folder / "restore-under-way").touch()
    (folder / "state.db").unlink()
    with pytest.raises(StateUnusable, match="restore was interrupted"):
        async with open_backends(config):
            pass
    restore(config, file)
    await check(config)


def damaged(content: bytes, where: int) -> bytes:
    return content[:where] + bytes([content[where] ^ 0x55]) + content[where + 1 :]


async def test_what_is_damaged_changes_nothing(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    backup(config, file)
    good = file.read_bytes()
    bad = [good[: len(good) * part // 10] for part in range(10)]
    bad += [damaged(good, where) for where in range(600, len(good) - 3000, len(good) // 20)]
    bad += [b"", b"garbage" * 1000]
    for content in bad:
        file.write_bytes(content)
        with pytest.raises(BackupError):
            restore(config, file, replace=True)
    await check(config)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "events/../../evil", "quarantine/payloads/../x", "state.db-wal"]
)
async def test_names_that_lead_elsewhere(config: Config, tmp_path: Path, name: str) -> None:
    file = tmp_path / "backup.tar"
    with tarfile.open(file, "w") as archive:
        (tmp_path / "evil").write_text("evil")
        archive.add(tmp_path / "evil", name)
    with pytest.raises(BackupError, match="not a backup"):
        restore(config, file, replace=True)
    await check(config)


async def test_links_are_no_files(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    with tarfile.open(file, "w") as archive:
        head = tarfile.TarInfo("state.db")
        head.type = tarfile.SYMTYPE
        head.linkname = "/etc/passwd"
        archive.addfile(head)
    with pytest.raises(BackupError, match="not a backup"):
        restore(config, file, replace=True)


async def test_a_newer_format_is_refused(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 99}))
    with tarfile.open(file, "w") as archive:
        archive.add(tmp_path / "manifest.json", "manifest.json")
    with pytest.raises(BackupError, match="newer version"):
        restore(config, file, replace=True)


def test_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="holds no state"):
        backup(embedded_config(tmp_path), tmp_path / "backup.tar")
    assert not (tmp_path / "backup.tar").exists()


@pytest.mark.parametrize(
    "kind", ["a password", "another archive", "a pipe", "the state in an archive", "a cut backup", "more than a backup"]
)
async def test_what_is_no_backup_isnt_replaced(config: Config, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "there"
    if kind == "a pipe":
        os.mkfifo(file)
    elif kind == "a password":
        file.write_text("secret\n")
    elif kind in ("a cut backup", "more than a backup"):
        backup(config, file)
        if kind == "a cut backup":
            os.truncate(file, file.stat().st_size // 2)
        else:
            with tarfile.open(file, "a") as archive:
                archive.add(tmp_path / "state" / "state.db", "audit.log")
    elif kind == "the state in an archive":
        with tarfile.open(file, "w") as archive:
            for name in ("state.db", "events", "quarantine"):
                archive.add(tmp_path / "state" / name, name)
        with pytest.raises(BackupError, match="not a"):
            restore(config, file, replace=True)
    else:
        with tarfile.open(file, "w") as archive:
            archive.add(tmp_path / "state" / "state.db", "somebody-elses.db")
    before = os.lstat(file)
    with pytest.raises(BackupError, match=r"there is there and no backup; name another file"):
        backup(config, file)
    after = os.lstat(file)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".there")]


async def test_what_came_while_it_was_written_isnt_replaced_either(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "there"

    def wall_clock() -> float:
        file.write_text("secret\n")
        return 1.7e9

    with pytest.raises(BackupError, match=r"there is there and no backup; name another file"):
        backup(config, file, wall_clock=wall_clock)
    assert file.read_text() == "secret\n"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".there")]


async def test_a_backup_is_replaced_and_an_empty_file(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    file.touch()
    for _ in range(2):
        backup(config, file)
        with tarfile.open(file) as archive:
            assert "manifest.json" in archive.getnames()


async def test_a_place_that_cannot_be_written(config: Config, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="missing: there is no such folder"):
        backup(config, tmp_path / "missing" / "backup.tar")
    with pytest.raises(BackupError, match="File name too long"):
        backup(config, tmp_path / ("x" * 300))
    with pytest.raises(BackupError, match="is a folder"):
        backup(config, tmp_path)
    with pytest.raises(BackupError):
        restore(config, tmp_path / "missing.tar", replace=True)


# --- a node whose state is in an indexer -----------------------------------------------------------------------------


def on_an_indexer(config: Config) -> Config:
    return attrs.evolve(config, communications_api=attrs.evolve(config.communications_api, backend="wazuh"))


async def test_a_node_on_an_indexer_keeps_its_quarantine_and_its_audit_log(tmp_path: Path) -> None:
    config = on_an_indexer(embedded_config(tmp_path))
    with pytest.raises(BackupError, match="holds no state"):
        backup(config, tmp_path / "backup.tar")
    async with open_quarantine(config) as quarantine:  # the daemon may go on
        await quarantine.add([Rejected(A1, "stateless", "why", b"", LARGE)])
        folder = config.communications_api.embedded.path
        (folder / "audit.log").write_text("{}\n")
        contents = backup(config, tmp_path / "backup.tar")
    names = {member.name.rpartition("/")[0] or member.name for member in contents.members}
    assert names == {"audit.log", "quarantine", "quarantine/payloads"}
    assert not contents.embedded_state

    other = on_an_indexer(embedded_config(tmp_path / "other"))
    assert restore(other, tmp_path / "backup.tar") == contents
    assert (other.communications_api.embedded.path / "audit.log").read_text() == "{}\n"
    async with open_quarantine(other) as quarantine:
        (entry,) = await quarantine.list()
        found = await quarantine.get(entry.id)
        assert found is not None
        assert found[1].payload == LARGE
    with pytest.raises(BackupError, match="holds state already"):
        restore(other, tmp_path / "backup.tar")


async def test_backups_of_the_two_kinds_of_nodes_are_told_apart(config: Config, tmp_path: Path) -> None:
    embedded = tmp_path / "embedded.tar"
    backup(config, embedded)
    with pytest.raises(BackupError, match=r"embedded backends; the configuration says `backend: wazuh`"):
        restore(on_an_indexer(embedded_config(tmp_path / "other")), embedded)
    backup(on_an_indexer(config), tmp_path / "indexer.tar")
    with pytest.raises(BackupError, match=r"the configuration says `backend: embedded`"):
        restore(config, tmp_path / "indexer.tar", replace=True)
    await check(config)  # and nothing was touched
    restore(on_an_indexer(config), tmp_path / "indexer.tar", replace=True)
    await check(config)  # the quarantine is as it was, and what is embedded was left alone


@pytest.mark.expects_errors
@pytest.mark.parametrize("name", ["state.db", "quarantine/quarantine.db"])
async def test_a_damaged_log_is_kept_and_told(tmp_path: Path, name: str) -> None:
    """Of a daemon that was killed: opening the database takes its log away."""
    config, killed = embedded_config(tmp_path / "made"), embedded_config(tmp_path / "killed")
    await fill(config)
    async with open_backends(config) as backends, open_quarantine(config) as quarantine:
        await backends.events.bulk([DocumentOperation("create", INDEX, "late", b"{}")])
        await quarantine.add([Rejected(A1, "stateful", "why", b"{}", b"{}\nlate")])
        shutil.copytree(tmp_path / "made" / "state", tmp_path / "killed" / "state")
    log = tmp_path / "killed" / "state" / f"{name}-wal"
    damaged = bytearray(log.read_bytes())
    damaged[100] ^= 1
    log.write_bytes(damaged)
    (told,) = backup(killed, tmp_path / "one.backup").damaged
    assert told.startswith(f"{log.name}: it is damaged")
    (kept,) = log.parent.glob(f"{log.name}.damaged-*")
    assert kept.read_bytes() == damaged


async def test_a_database_that_nobody_has_got_ready_yet(tmp_path: Path) -> None:
    """A daemon was killed before it had made its tables."""
    config, file = embedded_config(tmp_path), tmp_path / "backup.tar"
    folder = config.communications_api.embedded.path
    folder.mkdir(parents=True)
    (folder / "state.db").touch()
    backup(config, file)
    restore(config, file, replace=True)
    await fill(config)
    await check(config)


def test_a_database_with_other_tables(tmp_path: Path) -> None:
    """SQLite finds nothing wrong with it."""
    config, file = embedded_config(tmp_path), tmp_path / "backup.tar"
    folder = config.communications_api.embedded.path
    folder.mkdir(parents=True)
    connection = apsw.Connection(str(folder / "state.db"))
    connection.execute(f"PRAGMA application_id = {STATE.application_id}; CREATE TABLE counters (other)")
    connection.close()
    backup(config, file)
    before = (folder / "state.db").read_bytes()
    with pytest.raises(BackupError, match=r"the backup is damaged: state\.db: "):
        restore(config, file, replace=True)
    assert (folder / "state.db").read_bytes() == before


async def test_a_damaged_name_of_a_payload_costs_that_one(config: Config, tmp_path: Path) -> None:
    folder, file = config.communications_api.embedded.path / "quarantine", tmp_path / "backup.tar"
    connection = apsw.Connection(str(folder / "quarantine.db"))
    connection.execute("UPDATE entries SET file = CAST(x'ff' || substr(file, 2) AS TEXT) WHERE file IS NOT NULL")
    connection.close()
    (damage,) = backup(config, file).damaged
    assert damage.startswith("quarantine entry 2: its payload of 1000000 bytes, ")
    other = embedded_config(tmp_path / "other")
    restore(other, file)
    async with open_quarantine(other) as quarantine:
        assert [entry.payload_bytes for entry in await quarantine.list()] == [len(b"small")]
