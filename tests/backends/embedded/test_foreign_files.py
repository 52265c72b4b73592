"""What other people put into the state's folders: nothing is stopped by it, and nothing of it is deleted."""

import os
import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
import trio

from tests.contract.harness import A1, embedded_config, stored_bodies
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backup.verify import verify
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.opening import open_quarantine

pytestmark = pytest.mark.real_clock

LARGE = b"x" * 300_000


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, socket_path(path) as short:
        made.bind(short)


class socket_path:
    """A way to it that is short enough for a socket's name."""

    def __init__(self, path: Path) -> None:
        self.folder, self.name = path.parent, path.name

    def __enter__(self) -> str:
        self.descriptor = os.open(self.folder, os.O_RDONLY)
        return f"/proc/self/fd/{self.descriptor}/{self.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


KINDS: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "socket": socket_at,
    "folder": Path.mkdir,
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("/nonexistent/file"),
    "link to a file": lambda path: path.symlink_to("/etc/passwd"),
    "file": lambda path: path.write_text("mine\n"),
}
OWN_SEGMENT = "01750000000000-1-000001-00000000"
#: By folder, names of anybody's.
FOREIGN = {
    "": ("notes", "audit.log.notes"),
    "events": ("notes", "notes.ndjson", ".spool-notes"),
    "events/shares": ("notes", "notes.json"),
    "owners": ("notes", "12345"),
    "quarantine": ("notes",),
    "quarantine/payloads": ("notes", "a"),
}
#: Of the program's own form: a file of such a name is the program's, but nothing else is.
OWN = {
    "": ("audit.log.000001",),
    "events": (f"{OWN_SEGMENT}.ndjson", f".spool-1-{16 * 'a'}-{16 * 'b'}"),
    "events/shares": (f"{OWN_SEGMENT}.json",),
    "owners": (f"1-{16 * 'a'}",),
    "quarantine/payloads": (32 * "a",),
}


async def use(config: Config, number: int) -> None:
    """What a daemon does with its state between start and stop."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b'{"agent":{}}\n{"n":%d}\n' % number

    with trio.fail_after(20):
        async with open_backends(config) as backends, open_quarantine(config) as quarantine:
            await backends.engine.send_events(pieces(), agent_id=A1, length=None)
            await quarantine.add([Rejected(A1, "stateless", "why", b"", b"%d" % number + LARGE)])


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_stopped_and_nothing_deleted(tmp_path: Path, kind: str) -> None:
    config = embedded_config(tmp_path)
    state = config.communications_api.embedded.path
    await use(config, 1)
    (state / "events" / "shares").mkdir(exist_ok=True)
    put = [state / folder / name for folder, names in FOREIGN.items() for name in (*names, os.fsdecode(b"\xff\xfe"))]
    if kind != "file":
        put += [state / folder / name for folder, names in OWN.items() for name in names]
    for path in put:
        KINDS[kind](path)
    before = [os.lstat(path) for path in put]
    await use(config, 2)
    assert list(verify(config)) == []
    assert list(verify(config, repair=True)) == []
    await use(config, 3)
    assert [(each.st_ino, each.st_mode, each.st_size) for each in before] == [
        (each.st_ino, each.st_mode, each.st_size) for each in map(os.lstat, put)
    ]
    assert len(stored_bodies(state)) >= 3
