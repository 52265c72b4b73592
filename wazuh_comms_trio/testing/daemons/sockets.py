"""What the fakes are made of: socket files at the registry's places, exact reads, scripts as callbacks."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final, TypeAlias

import trio

from wazuh_comms_trio.testing.daemons.conduct import Answer, AnswerCallback, AnswerScript

#: Where a 4.x server has the sockets, under its home folder; the second path is the other release's.
STREAM_PATHS: Final[dict[str, tuple[str, ...]]] = {
    "wazuh-db": ("queue/db/wdb", "queue/sockets/wdb"),
    "authd": ("queue/sockets/auth",),
    "remoted": ("queue/sockets/remote",),
    "task-manager": ("queue/tasks/task", "queue/sockets/task"),
    "analysis": ("queue/sockets/analysis",),
    "com": ("queue/sockets/com",),
}

StrPath: TypeAlias = "str | os.PathLike[str]"


class ScriptExhausted(Exception):
    """Raised where the program under test asked once more than the script has answers."""


def bind_socket(path: Path, kind: socket.SocketKind) -> socket.socket:
    """A bound Unix socket of the mode the daemons' have (0660), its folder made where missing; a left-over file is
    replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, kind)
    try:
        bound.bind(os.fspath(path))
        path.chmod(0o660)
    except BaseException:
        bound.close()
        raise
    return bound


async def close_now(stream: trio.abc.Stream) -> None:
    """Close without waiting for anything, cancelled or not: a Cancelled from here would replace the error that led
    here."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await stream.aclose()


async def receive_exactly(stream: trio.abc.Stream, count: int) -> bytes:
    """``count`` bytes, or fewer where the peer ended."""
    data = bytearray()
    while len(data) < count:
        if not (more := await stream.receive_some(count - len(data))):
            break
        data += more
    return bytes(data)


def as_callback(answer: AnswerCallback | AnswerScript) -> AnswerCallback:
    if callable(answer):
        return answer
    if isinstance(answer, str | bytes):
        raise TypeError("a script is a sequence of answers, not one answer")
    rest = list(reversed(answer))

    def play(request: bytes) -> Answer:
        if not rest:
            raise ScriptExhausted(f"no answer left for {request[:100]!r}")
        return rest.pop()

    return play
