"""What was acknowledged survives ``kill -9`` of its process at any moment, and is there once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.backends.embedded.writer_program import stateless
from tests.contract.harness import A1, INDEX, embedded_config, stored_bodies
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.quarantine.opening import open_quarantine

pytestmark = [pytest.mark.real_clock, pytest.mark.processes]

ROOT = Path(__file__).parent.parent.parent


async def write_and_kill(folder: Path, lines: int) -> list[list[str]]:
    """What the writer said was acknowledged, until it was killed after ``lines`` of it."""
    command = [sys.executable, "-m", "tests.backends.embedded.writer_program", str(folder)]
    buffer = b""
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        with trio.fail_after(60):
            while buffer.count(b"\n") < lines:
                data = await process.stdout.receive_some()
                assert data, "the writer ended by itself"
                buffer += data
            process.kill()
            while data := await process.stdout.receive_some():
                buffer += data
    finally:
        process.kill()
        await process.wait()
    return [line.split() for line in buffer[: buffer.rfind(b"\n")].decode().splitlines()]


async def check(folder: Path, acknowledged: list[list[str]]) -> None:
    said: dict[str, list[list[str]]] = {}
    for what, *words in acknowledged:
        said.setdefault(what, []).append(words)
    assert said.keys() == {"document", "events", "command", "sent", "rejected"}
    config = embedded_config(folder)
    async with open_backends(config) as backends, open_quarantine(config) as quarantine:
        for document_id, number in said["document"]:
            body = await backends.events.get(INDEX, document_id)
            assert body is not None, document_id
            assert json.loads(body) == {"n": int(number), "m": int(number)}
            assert await backends.events.get(INDEX, f"gone-{document_id}") is None
        for (command_id,) in said["command"]:
            command = await backends.commands.get(command_id)
            assert command is not None, command_id
            assert command.status == "sent" or [command_id] not in said["sent"]
        # What nobody holds any more is offered again.
        await backends.commands.expire()
        pending = {command.document_id for command in await backends.commands.list(status="pending", limit=100_000)}
        offered: set[str] = set()
        while found := await backends.commands.claim([A1]):
            offered |= {command.document_id for command in found}
        assert offered == pending
        entries = {entry.agent_id: entry for entry in await quarantine.list(limit=100_000)}
        for agent_id, size in said["rejected"]:
            whole = await quarantine.get(entries[agent_id].id)
            assert whole is not None
            assert len(whole[1].payload) == int(size)
        files = {entry.id for entry in entries.values() if entry.payload_bytes > 256 * 1024}
        payloads = config.communications_api.embedded.path / "quarantine" / "payloads"  # made with the first large one
        assert len(list(payloads.glob("*"))) == len(files)
    bodies = [body for _, body in stored_bodies(config.communications_api.embedded.path)]
    numbers = [json.loads(body.split(b"\n")[1])["n"] for body in bodies]
    assert len(numbers) == len(set(numbers))
    assert {int(number) for (number,) in said["events"]} <= set(numbers)
    for number, body in zip(numbers, bodies, strict=True):
        assert body == stateless(number)


@pytest.mark.parametrize("lines", [60, 500])
async def test_nothing_acknowledged_is_lost(tmp_path: Path, lines: int) -> None:
    acknowledged = await write_and_kill(tmp_path, lines)
    await check(tmp_path, acknowledged)
