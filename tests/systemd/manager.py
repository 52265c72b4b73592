"""A stand-in for the service manager: it listens to what a service notifies, and passes listening sockets."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import trio
from attrs import define, field

from tests.e2e.processes import Files, command_line

#: Puts the passed descriptors where sd_listen_fds(3) wants them, says whose they are, and becomes the service.
SHIM = """
import os, sys
count = int(sys.argv[1])
high = [os.dup(int(number)) for number in sys.argv[2 : 2 + count]]
while min(high, default=99) < 3 + count:
    high = [os.dup(number) for number in high]
for position, number in enumerate(high):
    os.dup2(number, 3 + position)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(count)
os.execv(sys.argv[2 + count], sys.argv[2 + count :])
"""


@define
class Manager:
    """``said``: what was notified, a dictionary a message, in order; ``moments``: when, on trio's clock."""

    path: Path
    said: list[dict[str, str]] = field(factory=list)
    moments: list[float] = field(factory=list)
    _changed: trio.Event = field(factory=trio.Event)

    async def listen(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            await sock.bind(str(self.path))
            task_status.started()
            while True:
                text = (await sock.recv(65536)).decode()
                self.moments.append(trio.current_time())
                self.said.append(dict(line.split("=", 1) for line in text.splitlines()))
                self._changed.set()
                self._changed = trio.Event()

    def fed(self, now: float) -> tuple[int, float]:
        """How often the watchdog was fed, and for how many seconds it wasn't, at most."""
        fed = [moment for moment, said in zip(self.moments, self.said, strict=True) if said.get("WATCHDOG") == "1"]
        pauses = (later - earlier for earlier, later in pairwise([*fed, now]))
        return len(fed), max(pauses, default=math.inf)

    async def told(self, key: str, value: str | None = None, *, times: int = 1, since: int = 0) -> dict[str, str]:
        """The message in which it was told so, for the so-manieth time since ``said`` was that long."""
        while True:
            found = [m for m in self.said[since:] if key in m and value in (None, m[key])]
            if len(found) >= times:
                return found[times - 1]
            await self._changed.wait()


@define
class Service:
    """``log``: its lines so far."""

    process: trio.Process
    log: list[str] = field(factory=list)

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        async for data in self.process.stderr:
            *lines, rest = (rest + data).split(b"\n")
            self.log += [line.decode() for line in lines]


@asynccontextmanager
async def open_manager(folder: Path) -> AsyncIterator[Manager]:
    manager = Manager(folder / "notify")
    async with trio.open_nursery() as nursery:
        await nursery.start(manager.listen)
        yield manager
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def start_service(
    files: Files,
    manager: Manager,
    sockets: Sequence[tuple[str, socket.socket]] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Service]:
    """As systemd would start it. It is killed at the end, if it hasn't ended by then."""
    numbers = [sock.fileno() for _, sock in sockets]
    command = [sys.executable, "-c", SHIM, str(len(numbers)), *map(str, numbers), *command_line(files)]
    names = {"LISTEN_FDNAMES": ":".join(name for name, _ in sockets)} if sockets else {}
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=numbers,
        env={**os.environ, "NOTIFY_SOCKET": str(manager.path), **names, **(environment or {})},
    )
    service = Service(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.read_log)
        try:
            yield service
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                    await process.wait()
            nursery.cancel_scope.cancel()
