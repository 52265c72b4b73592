"""Streams for HTTP connections, and what went wrong with one, as text."""

from __future__ import annotations

import errno
import os
import ssl
from typing import Final

import trio

__all__ = ["PlainStream", "connect_tcp", "connect_unix", "describe_cause"]


#: What trio puts before the reason when a connection fails.
_TRIOS: Final = "Error connecting to ("


class PlainStream(trio.abc.Stream):
    """A stream that has no farewell to say: closing it never waits."""

    def close_nowait(self) -> None:
        """Close it. Doing it again does nothing."""
        raise NotImplementedError


async def connect_tcp(host: str, port: int, tls: ssl.SSLContext | None = None) -> trio.abc.Stream:
    """A TCP connection, with ``tls`` an encrypted one to the name ``host``, its handshake done. Raises ``OSError``,
    ``trio.BrokenResourceError``; cancelled, nothing stays open."""
    stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
    if tls is None:
        return stream
    secure = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secure


async def connect_unix(path: str) -> trio.SocketStream:
    """A connection to the Unix socket at ``path``. Raises ``OSError``. A listener whose queue is full refuses a
    non-blocking connection at once, and what looks like one under way isn't: asking for the peer's name tells."""
    stream = await trio.open_unix_socket(path)
    try:
        stream.socket.getpeername()
    except OSError:
        await trio.aclose_forcefully(stream)
        raise OSError(errno.EAGAIN, "its queue of connections is full") from None
    return stream


def describe_cause(error: BaseException) -> str:
    """Why a stream couldn't be opened, or broke, for a log line. OpenSSL's reason is in the cause of what trio raises;
    several addresses fail as a group."""
    cause = error.__cause__ or error
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(map(describe_cause, cause.exceptions)))
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason.replace('_', ' ').lower() if cause.reason else cause}"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    # trio's has the address as a tuple, which the line names already.
    return os.strerror(cause.errno) if isinstance(cause, OSError) and text.startswith(_TRIOS) and cause.errno else text
