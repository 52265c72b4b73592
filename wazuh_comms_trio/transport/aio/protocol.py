"""Request and answer over one trio stream, for several tasks at once: :class:`WazuhAsyncProtocol`.

No task runs in the background. Of the tasks that wait for an answer, the one whose answer comes next reads for all of
them, hands out what came, and passes the reading on. So a hundred requests in flight cost as many reads as the kernel
needs to deliver their answers.

What holds under cancellation (and so when a deadline passes):

* ``connect``: nothing is left open, connecting again is possible;
* ``request`` and ``open_exchange`` before the first byte went out: nothing happened;
* ... after a part of the request went out: the connection is closed, whoever uses it gets ``trio.ClosedResourceError``;
* ... after the whole request went out: with ``pipelining`` the late answer is read and dropped by whoever comes next,
  without it the connection is closed;
* an exchange that is left before its last answer: the connection is closed;
* ``receive_request``: what came is kept; ``send_reply`` as a request's sending; ``aclose``: closed all the same.
"""

from __future__ import annotations

import os
from typing import Self

from wazuh_comms_trio.transport.aio.protocol_client import Exchange, ProtocolClient
from wazuh_comms_trio.transport.aio.protocol_connection import ConnectionState, ProtocolStatistics
from wazuh_comms_trio.transport.aio.protocol_server import ProtocolServer
from wazuh_comms_trio.wire.framing import HEADER_FORMAT, MAX_RECEIVE_BYTES, MAX_SEND_BYTES

__all__ = ["ConnectionState", "Exchange", "ProtocolStatistics", "WazuhAsyncProtocol"]


class WazuhAsyncProtocol(ProtocolClient, ProtocolServer):
    """A conversation of framed requests and answers over one stream: a Unix socket, TCP, TLS, or one in memory.

    As client: :meth:`request` for one answer, :meth:`open_exchange` for several to one request. As server:
    :meth:`receive_request` and :meth:`send_reply`, or :meth:`serve`. A connection is one or the other, as the first
    call decides; the other side's calls are then :class:`WazuhInternalError` 1014.

    Several tasks may use it. With ``pipelining`` requests are sent without waiting for earlier answers, which the
    peer must give in order (wazuh-db does; the daemons that answer one request and close don't); without, each waits
    for its turn, first come first served. ``max_send_bytes`` and ``max_receive_bytes`` limit payloads.

    Errors as in :class:`WazuhAsyncSocket`. ``bytes_sent`` of a :class:`TransportBroken` is 0 when nothing of the
    request had gone out, so that it may be repeated on another connection.
    """

    @classmethod
    async def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        pipelining: bool = False,
        max_send_bytes: int = MAX_SEND_BYTES,
        max_receive_bytes: int = MAX_RECEIVE_BYTES,
        header_format: str = HEADER_FORMAT,
        require_owner: int | str | None = None,
    ) -> Self:
        """A client connected to a Unix socket: ``async with await WazuhAsyncProtocol.from_path(path) as daemon``."""
        protocol = cls(
            pipelining=pipelining,
            max_send_bytes=max_send_bytes,
            max_receive_bytes=max_receive_bytes,
            header_format=header_format,
            require_owner=require_owner,
        )
        await protocol.connect(path)
        return protocol
