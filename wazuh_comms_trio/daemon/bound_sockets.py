"""Real listeners, made apart from serving: TCP ports and the command socket, with errors that say what to do."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from wazuh_comms_trio.foundation.log_context import format_address

__all__ = ["StartError", "is_served", "open_tcp_listeners", "open_unix_listener"]

#: Agents reconnect all at once after a restart; the kernel cuts this to net.core.somaxconn.
BACKLOG: Final = 4096
#: Of the command socket: its users are the server's own programs.
SOCKET_MODE: Final = 0o660
FOLDER_MODE: Final = 0o770
#: ``sun_path`` holds this many bytes and a NUL.
LONGEST_PATH: Final = 107


class StartError(Exception):
    """The daemon can't start; the text is a sentence for the operator."""


async def open_tcp_listeners(hosts: Sequence[str], port: int, what: str) -> list[trio.SocketListener]:
    """One listener an address; port 0: one that is free (the same for all, where they are several). ``what`` is for the
    error. Raises ``StartError``, with everything closed.
    """
    listeners: list[trio.SocketListener] = []
    try:
        for host in hosts:
            try:
                listeners += await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
            except OSError as error:
                raise StartError(f"{what}: can't listen on {format_address((host, port))}: {_reason(error)}") from error
            port = port or listeners[0].socket.getsockname()[1]
    except BaseException:
        for listener in listeners:
            await trio.aclose_forcefully(listener)
        raise
    return listeners


def _reason(error: OSError) -> str:
    causes = error.__cause__
    if isinstance(causes, BaseExceptionGroup):  # one an address of the host
        error = next((cause for cause in causes.exceptions if isinstance(cause, OSError)), error)
    match error.errno:
        case errno.EADDRINUSE:
            return "another program uses this port"
        case errno.EADDRNOTAVAIL:
            return "this host has no such address"
        case errno.EACCES | errno.EPERM:
            return "not permitted (ports below 1024 need CAP_NET_BIND_SERVICE)"
    return error.strerror or str(error)


@asynccontextmanager
async def open_unix_listener(path: Path, what: str) -> AsyncIterator[trio.SocketListener]:
    """A Unix socket, mode 0660; ``what`` is the configuration's key, for errors. What an earlier process left behind is
    replaced, a socket that another process serves is not (``StartError``). At the end the file is
    removed, if it is still this one.
    """
    sock, identity = _make_socket(path, what)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    try:
        yield listener
    finally:
        await trio.aclose_forcefully(listener)
        with suppress(OSError):
            if _identity(path) == identity:
                os.unlink(path)


def _make_socket(path: Path, what: str) -> tuple[socket.socket, tuple[int, int, int]]:
    """Listening, and what its file is known by. Blocks, before anything runs."""
    _check_free(path, what)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode is there from the first moment. The mask is the whole process's, but nothing else runs yet.
        mask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            sock.bind(os.fspath(path))
        finally:
            os.umask(mask)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        return sock, _identity(path)
    except OSError as error:
        sock.close()
        raise StartError(f"{what}: can't make {path}: {error.strerror or error}") from error
    except BaseException:
        sock.close()
        raise


def _identity(path: Path) -> tuple[int, int, int]:
    """Inode numbers are used again at once, so that the time is part of it."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _check_free(path: Path, what: str) -> None:
    """Makes the folder where it may, and removes a socket that no process serves. Raises ``StartError``."""
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise StartError(f"{what}: {path} is longer than {LONGEST_PATH} bytes, which is all a socket's path may have")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise StartError(f"{what}: {path} is there and isn't a socket")
        if is_served(path):
            raise StartError(f"{what}: another process serves {path}; is the daemon running already?")
        path.unlink()
    except OSError as error:
        raise StartError(f"{what}: can't make {path}: {error.strerror or error}") from error


def is_served(path: Path) -> bool:
    """Whether a process listens on a Unix socket. Raises ``OSError`` where that can't be known."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True  # its backlog is full
    return True
