"""Writes that fail, at any call: what was acknowledged is there afterwards, and the next one works."""

import ast
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

import apsw
import pytest
import trio
from attrs import define, field

from tests.backends.embedded.faulty_files import Fault, faulty_files, faulty_sqlite
from tests.contract.harness import A1, INDEX, embedded_config, stored_bodies, until_it_works
from wazuh_comms_trio.audit.log import User, audit_log
from wazuh_comms_trio.backends.embedded.database import connections, recovery
from wazuh_comms_trio.backends.embedded.ndjson.spool import MEMORY_BYTES
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, DocumentOperation, Target
from wazuh_comms_trio.backends.unavailable import StateUnusable
from wazuh_comms_trio.backup.create import BackupError, backup, restore
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation import file_writes
from wazuh_comms_trio.quarantine.interface import Quarantine, Rejected
from wazuh_comms_trio.quarantine.opening import open_quarantine

pytestmark = [pytest.mark.real_clock, pytest.mark.expects_errors]

LARGE = MEMORY_BYTES + 70_000  # a body that is a file of its own, and a payload that is
PACKAGE = Path(file_writes.__file__).parents[1]


@define
class Acknowledged:
    """What a caller was told is stored."""

    agents: list[str] = field(factory=list)
    commands: list[str] = field(factory=list)
    documents: dict[str, bytes] = field(factory=dict)
    bodies: list[bytes] = field(factory=list)
    payloads: list[bytes] = field(factory=list)
    audited: list[str] = field(factory=list)
    backups: list[Path] = field(factory=list)


def _body(number: int, size: int) -> bytes:
    return b'{"n":%d,"m":"%b"}' % (number, b"x" * size)


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), 65536):
        await trio.lowlevel.checkpoint()
        yield body[start : start + 65536]


async def store_some(config: Config, told: Acknowledged, number: int) -> None:
    """A little of everything, each with its own answer; ``told`` learns of those that succeeded."""
    folder = config.communications_api.embedded.path

    async def agent() -> None:
        agent_id = f"{A1[:-2]}{number:02d}"
        await backends.agents.add(Agent(agent_id, "a", key_hash="h"))
        told.agents.append(agent_id)

    async def command() -> None:
        command = Command(f"c{number}", Target("agent", A1), Action("restart"))
        await backends.commands.add([command])
        told.commands.append(command.document_id)

    async def document() -> None:
        body = b'{"n":%d}' % number
        (result,) = await backends.events.bulk([DocumentOperation("create", INDEX, f"d{number}", body)])
        assert result.status == 201
        told.documents[f"d{number}"] = body

    async def events(size: int) -> None:
        body = _body(number, size)
        async with aclosing(_pieces(body)) as pieces:
            await backends.engine.send_events(pieces, agent_id=A1, length=None)
        told.bodies.append(body)

    async def rejected(quarantine: Quarantine, size: int) -> None:
        payload = _body(number, size)
        await quarantine.add([Rejected(A1, "stateless", "bad", b"", payload)])
        told.payloads.append(payload)

    async with (
        open_backends(config, tolerant=True) as backends,
        open_quarantine(config, tolerant=True) as quarantine,
    ):
        for attempt in (
            agent,
            command,
            document,
            lambda: events(10),
            lambda: events(LARGE),
            lambda: events(20),
            lambda: rejected(quarantine, 10),
            lambda: rejected(quarantine, LARGE),
        ):
            try:
                await attempt()
            except BackendUnavailable:
                continue
    try:
        audit_log(folder).append(User(0), "agents add", f"object {number}")
        told.audited.append(f"object {number}")
    except OSError:
        pass
    try:
        backup(config, folder.parent / f"{number}.backup")
        told.backups.append(folder.parent / f"{number}.backup")
    except BackupError:
        pass


async def check_stored(config: Config, told: Acknowledged) -> None:
    """Everything that was acknowledged can be read by a process that opens the state now."""
    folder = config.communications_api.embedded.path
    async with open_backends(config) as backends, open_quarantine(config) as quarantine:
        for agent_id in told.agents:
            assert await backends.agents.get(agent_id) is not None
        for command_id in told.commands:
            assert await backends.commands.get(command_id) is not None
        for document_id, document in told.documents.items():
            assert await backends.events.get(INDEX, document_id) == document
        payloads = [
            b"".join([piece async for piece in quarantine.payload(entry.id)]) for entry in await quarantine.list()
        ]
        for payload in told.payloads:
            assert payload in payloads
    kept = [body for _, body in stored_bodies(folder)]
    for body in told.bodies:
        assert body in kept
    if told.audited:
        objects = []
        for line in (folder / "audit.log").read_text().splitlines():
            try:
                objects.append(json.loads(line)["object"])
            except ValueError:
                continue  # an entry that was cut off; nobody was told that it is there
        for target in told.audited:
            assert target in objects
    for number, file in enumerate(told.backups):
        restore(embedded_config(folder.parent / f"restored-{number}"), file)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "wazuh_comms_trio")  # until the test's end
    monkeypatch.setattr(recovery, "RETRY_INTERVAL", 0.01)
    monkeypatch.setattr(connections, "BUSY_TIMEOUT", 0.5)


async def test_short_writes_everywhere(tmp_path: Path) -> None:
    config, told = embedded_config(tmp_path), Acknowledged()
    with faulty_files("short") as calls:
        await store_some(config, told, 1)
    assert {"write", "pwrite", "writev"} <= set(calls.made)
    assert len(told.bodies) == 3
    assert len(told.payloads) == 2
    assert len(told.backups) == 1
    await check_stored(config, told)


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC"])
async def test_every_call_of_ours_fails_once(tmp_path: Path, fault: Fault) -> None:
    with faulty_files(fault) as calls:
        await store_some(embedded_config(tmp_path / "whole"), Acknowledged(), 0)
    number_of_calls = len(calls.made)
    assert number_of_calls > 30
    for at in range(number_of_calls):
        config, told = embedded_config(tmp_path / str(at)), Acknowledged()
        (tmp_path / str(at)).mkdir()
        with faulty_files(fault, at) as calls:
            try:
                await store_some(config, told, 1)
            except StateUnusable:
                continue  # the folder couldn't be made: nothing was begun
        assert len(calls.made) >= at
        await store_some(config, told, 2)
        assert len(told.bodies) >= 5, f"call {at} ({calls.made[at]}) was felt by later ones"
        await check_stored(config, told)


@pytest.mark.parametrize(
    ("first", "code"), list(enumerate(["SQLITE_IOERR_WRITE", "SQLITE_FULL", "SQLITE_IOERR_FSYNC"]))
)
async def test_every_call_of_sqlite_fails_once(tmp_path: Path, first: int, code: str) -> None:
    """Each call in one of the three ways."""
    number = getattr(apsw, code)
    with faulty_sqlite(number) as vfs:
        await _store_in_databases(embedded_config(tmp_path / "whole"), Acknowledged(), 1)
    assert vfs.made > 30
    for at in range(first, vfs.made, 3):
        (tmp_path / str(at)).mkdir()
        config, told = embedded_config(tmp_path / str(at)), Acknowledged()
        with faulty_sqlite(number, at), suppress(StateUnusable):
            await _store_in_databases(config, told, 1)
        await _store_in_databases(config, told, 2)
        assert len(told.documents) >= 1
        await check_stored(config, told)


async def _store_in_databases(config: Config, told: Acknowledged, number: int) -> None:
    """Five writes one after the other, tried again until the store is well."""
    async with open_backends(config, tolerant=True) as backends:
        for step in range(5):
            name = f"d{number}-{step}"
            body = b'{"n":%d}' % step

            async def write(name: str = name, body: bytes = body) -> None:
                await backends.events.bulk([DocumentOperation("create", INDEX, name, body)])

            await until_it_works(write)
            told.documents[name] = body


def test_nothing_else_writes() -> None:
    """Calls that may take a part, or whose failure must be testable, are in one file."""
    watched = {"write", "pwrite", "writev", "pwritev", "fsync", "fdatasync", "ftruncate", "truncate", "rename", "link"}
    found = []
    for file in PACKAGE.rglob("*.py"):
        if file == Path(file_writes.__file__) or "testing" in file.parts or "transport" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in watched
                and isinstance(node.value, ast.Name)
                and node.value.id == "os"
            ):
                found.append(f"{file.name}:{node.lineno} os.{node.attr}")
    assert found == []
