"""SQLite and files are used inline: on the mock clock nothing may wait in a thread, and nothing pauses inside a
transaction."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import trio

from wazuh_comms_trio.backends.embedded.database import connections, database, writer

if TYPE_CHECKING:
    from tests.simulation.nodes.process import Process

__all__ = ["PROCESS", "is_dead", "use_inline"]

#: Whose task this is; None: the operator's tool.
PROCESS: ContextVar[Process | None] = ContextVar("simulated process", default=None)


class _Inline:
    """In the place of a connection with a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.plain = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)

    async def aclose(self, force: bool = False) -> None:
        if is_dead():
            self.plain.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.plain.close(force)
        await trio.lowlevel.checkpoint()


def is_dead() -> bool:
    process = PROCESS.get()
    return process is not None and process.dead


async def _open_connection(path: Path, what: str) -> _Inline:
    await trio.lowlevel.checkpoint()
    return _Inline(path)


async def _in_thread(connection: _Inline, function: Callable[..., Any], *args: object) -> Any:
    await trio.lowlevel.checkpoint()
    if is_dead():
        if function.__name__ == "_keep_log_if_damaged":
            return None  # on the way to closing
        raise apsw.IOError("the process is dead")
    return function(connection.plain, *args)


async def _in_slow_thread(connection: _Inline, function: Callable[..., Any], *args: object) -> Any:
    """As a disk that takes its time: others hand in what they write meanwhile."""
    process = PROCESS.get()
    if process is not None and process.world.plan.features.slow_disk:
        with trio.CancelScope(shield=True):
            await trio.sleep(process.world.rng_calls.uniform(0.001, 0.04))
    return await _in_thread(connection, function, *args)


async def _run_sync(function: Callable[..., Any], *args: object, **_: object) -> Any:
    """``function.seconds``: how long it takes, if it says so."""
    await trio.sleep(getattr(function, "seconds", 0.0))
    if is_dead():
        raise OSError("the process is dead")
    return function(*args)


def use_inline() -> None:
    """Once: in the place of threads."""
    replacements: list[tuple[Any, str, object]] = [(trio.to_thread, "run_sync", _run_sync)]
    replacements += [(module, "in_thread", _in_thread) for module in (connections, database)]
    replacements += [(writer, "in_thread", _in_slow_thread)]
    replacements += [(connections, "open_connection", _open_connection)]
    for module, name, replacement in replacements:
        setattr(module, name, replacement)
