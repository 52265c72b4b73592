"""Writes to every embedded store as fast as it can, and says so of each write once it was acknowledged. Made to be
killed:

python -m tests.backends.embedded.writer_program FOLDER
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import trio

from tests.contract.harness import A1, INDEX, embedded_config
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Action, Backends, Command, DocumentOperation, Target
from wazuh_comms_trio.quarantine.interface import Quarantine, Rejected
from wazuh_comms_trio.quarantine.opening import open_quarantine

LARGE = 1_500_000


def acknowledged(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def stateless(number: int) -> bytes:
    filler = "x" * (LARGE if number % 10 == 0 else 100)
    return b'{"agent":{}}\n{"n":%d}\n{"filler":"%b"}' % (number, filler.encode())


async def pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), 65536):
        yield body[start : start + 65536]


async def write_documents(backends: Backends, part: int) -> None:
    number = 0
    while True:
        number += 1
        document_id = f"{part}-{number}"
        operations = [
            DocumentOperation("create", INDEX, document_id, b'{"n":%d}' % number),
            DocumentOperation("create", INDEX, f"gone-{document_id}", b"{}"),
            DocumentOperation("update", INDEX, document_id, b'{"m":%d}' % number),
            DocumentOperation("delete", INDEX, f"gone-{document_id}"),
        ]
        results = await backends.events.bulk(operations)
        assert [result.status for result in results] == [201, 201, 200, 200]
        acknowledged("document", document_id, number)


async def write_events(backends: Backends, part: int) -> None:
    number = part * 1_000_000
    while True:
        number += 1
        async with aclosing(pieces(stateless(number))) as chunks:
            await backends.engine.send_events(chunks, agent_id=A1, length=None)
        acknowledged("events", number)


async def write_commands(backends: Backends) -> None:
    number = 0
    while True:
        number += 1
        command_id = f"c{number}"
        await backends.commands.add([Command(command_id, Target("agent", A1), Action("restart"))])
        acknowledged("command", command_id)
        await backends.commands.claim([A1])
        if number % 2:
            await backends.commands.mark_sent([command_id])
            acknowledged("sent", command_id)


async def write_quarantine(quarantine: Quarantine) -> None:
    number = 0
    while True:
        number += 1
        payload = b"%d" % number + b"x" * (400_000 if number % 5 == 0 else 10)
        await quarantine.add([Rejected(f"agent-{number}", "stateful", "why", b"{}", payload)])
        acknowledged("rejected", f"agent-{number}", len(payload))


async def main(folder: Path) -> None:
    config = embedded_config(folder)
    async with (
        open_backends(config) as backends,
        open_quarantine(config) as quarantine,
        trio.open_nursery() as nursery,
    ):
        for part in range(3):
            nursery.start_soon(write_documents, backends, part)
            nursery.start_soon(write_events, backends, part)
        nursery.start_soon(write_commands, backends)
        nursery.start_soon(write_quarantine, quarantine)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
