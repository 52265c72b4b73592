"""A worker's process, as the supervisor holds it: started from the main thread, waited for without a thread.

``trio.lowlevel.open_process`` starts processes from a thread, which ends some seconds later. To the kernel that thread
is the parent, and its end a parent's: a worker that asked to be woken by its parent's death (``PR_SET_PDEATHSIG``)
would be woken then, also one that was stopped (SIGSTOP) and has to be found hanging.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Final, Protocol

import trio

from wazuh_comms_trio.daemon.supervisor.link import Link

__all__ = ["Child", "Process", "StartChild", "describe_status", "linked_child"]

#: Seconds within which a process that was killed is gone.
REAP_TIMEOUT: Final = 5.0
#: Variables by which the service manager speaks to the supervisor alone.
_OF_SERVICE_MANAGER: Final = frozenset(
    ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
)


def _module_command(module: str, *arguments: str) -> list[str]:
    """Runs a module with this interpreter. Its modules come from the folder that happens to be the current one only if
    this process's do, too: ``python -m`` alone would look there first."""
    here = sys.path[:1] in ([""], [os.getcwd()])
    return [sys.executable, *([] if here else ["-P"]), "-m", module, *arguments]


class Process(Protocol):
    """What the supervisor does with a process that it has started: see ``Child``."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int: ...

    def kill(self) -> None: ...


class StartChild(Protocol):
    """How a module is started as a process: see ``linked_child``."""

    def __call__(
        self, module: str, /, *arguments: str, pass_fds: Sequence[int]
    ) -> AbstractAsyncContextManager[tuple[Process, Link]]: ...


class Child:
    """A process; ``kill`` and ``wait`` for it; ``returncode`` is negative when a signal ended it, None before the end
    is known. It has to be waited for once."""

    def __init__(self, command: Sequence[str], *, pass_fds: Sequence[int], env: Mapping[str, str]) -> None:
        """Starts the process; blocks for the few milliseconds until the program has begun. Raises ``OSError``."""
        self._popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=pass_fds, env=dict(env))
        self._descriptor: int | None = None
        with suppress(OSError, AttributeError):  # an old kernel, or no descriptor is left
            self._descriptor = os.pidfd_open(self.pid)
        self._waiting = trio.Lock()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    async def wait(self) -> int:
        """Waits for the end; returns the exit status. Cancelled: it goes on."""
        async with self._waiting:
            if self._descriptor is not None:
                if self.returncode is None:
                    await trio.lowlevel.wait_readable(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = None
            elif self.returncode is None:
                # WNOWAIT only looks: a cancelled call leaves its thread behind, and the status for the next call.
                look = partial(os.waitid, os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
                with suppress(ChildProcessError):
                    await trio.to_thread.run_sync(look, abandon_on_cancel=True)
            return self._popen.wait()

    def kill(self) -> None:
        """Sends SIGKILL, if the process is still there."""
        self._popen.send_signal(signal.SIGKILL)  # looks first, so that no other process of the number is hit

    async def end(self) -> None:
        """Kills the process, if it is still there, and reaps it, also when the caller is being cancelled."""
        self.kill()
        with trio.move_on_after(REAP_TIMEOUT, shield=True):
            await self.wait()


@asynccontextmanager
async def linked_child(module: str, *arguments: str, pass_fds: Sequence[int]) -> AsyncIterator[tuple[Child, Link]]:
    """A module that runs as a process and its link, whose other end's descriptor is its last argument. When the block
    ends, however, the process is killed if it is still there. Raises ``OSError`` when it can't be started."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    link = Link(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    try:
        with theirs:
            descriptor = theirs.fileno()
            command = _module_command(module, *arguments, str(descriptor))
            process = Child(command, pass_fds=[descriptor, *pass_fds], env=_environment_of_child(os.environ))
        try:
            yield process, link
        finally:
            await process.end()
    finally:
        await link.aclose()


def _environment_of_child(own: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in own.items() if name not in _OF_SERVICE_MANAGER}


def describe_status(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
