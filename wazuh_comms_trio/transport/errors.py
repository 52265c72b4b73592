"""The errors of the trio classes, which are trio's own as well. Imports trio; the rest is in
:mod:`wazuh_comms_trio.errors`.

*Closed* means that we ended it, *Broken* that they did, so that ``except trio.BrokenResourceError`` works as with any
stream. A deadline set by the caller stays ``trio.TooSlowError``, two tasks in one method stay
``trio.BusyResourceError``.
"""

from __future__ import annotations

import sys

import trio

from wazuh_comms_trio.errors import (
    EmptyFrame,
    FrameTooLarge,
    PeerClosed,
    TruncatedFrame,
    WazuhError,
    WazuhInternalError,
)


class TransportError(WazuhError):
    """1014: there is no connection any more."""

    #: How much of the message at hand may have gone out before. With 0 it may be repeated on another connection.
    bytes_sent: int = 0


class TransportClosed(TransportError, trio.ClosedResourceError):
    """1014: not connected, closed by us, or given up after a send that was cancelled half-way."""


class TransportBroken(TransportError, trio.BrokenResourceError):
    """1014: the connection failed, or the peer ended it."""


class TransportPeerClosed(TransportBroken, PeerClosed):
    """1014: the peer closed the connection between two frames, where an answer was waited for."""


class TransportTruncatedFrame(TransportBroken, TruncatedFrame):
    """1014: the peer closed the connection inside a frame."""


class TransportEmptyFrame(TransportBroken, EmptyFrame):
    """1014: the peer announced a frame of length 0."""


class TransportFrameTooLarge(TransportBroken, FrameTooLarge):
    """1014: the peer announced a frame above the receiving limit."""


class QueueClosed(WazuhInternalError, trio.ClosedResourceError):
    """1011: the low-level send on a datagram queue that was closed."""


class QueueBroken(WazuhInternalError, trio.BrokenResourceError):
    """1011: the low-level send failed, the queue's reader is gone."""


class TrioOnly(RuntimeError):
    """A trio class was used where trio doesn't run."""


_TWINS: dict[type[WazuhError], type[TransportBroken]] = {
    PeerClosed: TransportPeerClosed,
    TruncatedFrame: TransportTruncatedFrame,
    EmptyFrame: TransportEmptyFrame,
    FrameTooLarge: TransportFrameTooLarge,
}


def as_broken(exc: WazuhError) -> TransportBroken:
    """The trio twin of an error from the decoder."""
    twin = _TWINS.get(type(exc), TransportBroken)(exc.code)
    twin.__dict__.update(exc.__dict__)
    twin.args = exc.args
    return twin


def require_trio(name: str) -> None:
    """Raise :class:`TrioOnly` with one sentence when ``name`` is used outside trio."""
    if trio.lowlevel.in_trio_task():
        return
    where = "this is asyncio" if _in_asyncio() else "no event loop runs here"
    raise TrioOnly(
        f"{name} needs trio, and {where}: run it with trio.run, or use WazuhSocket in a thread or await wazuh_sendsync"
    )


def _in_asyncio() -> bool:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
