"""What a connection's first bytes say of who is calling, before any of it is decrypted.

Agents send no ALPN (spec, PROTOCOL.md 1); curl, and checks of balancers that are told to, ask for HTTP by it. A
balancer that speaks the PROXY protocol says ``LOCAL`` or ``UNKNOWN`` of its own checks.
"""

from __future__ import annotations

from socket import MSG_DONTWAIT, MSG_PEEK
from typing import Any, Final

from wazuh_comms_trio.http.balancers.proxy_header import SIGNATURE, ProxyHeaderInvalid, ProxyHeaderReader

__all__ = ["PEEKED_BYTES", "is_check", "peek"]

#: A ClientHello with a key share of a kilobyte fits in.
PEEKED_BYTES: Final = 4096

_PROXY: Final = (b"PROXY ", SIGNATURE)
_PEEK: Final = int(MSG_PEEK | MSG_DONTWAIT)
_HANDSHAKE: Final = b"\x16"
#: A name in the list of ALPN: its length and itself.
_HTTP: Final = b"\x08http/1.1"


def peek(sock: Any) -> bytes:
    """What has arrived, up to 4096 bytes; it stays there to be read. Empty where nothing has, or the peer has left."""
    try:
        data: bytes = sock.recv(PEEKED_BYTES, _PEEK)
    except OSError:
        return b""
    return data


def is_check(data: bytes | bytearray) -> bool:
    """Whether a connection that begins with ``data`` isn't an agent's, as far as one can see. What is cut short or no
    TLS counts as an agent's."""
    if data.startswith(_PROXY):
        reader = ProxyHeaderReader()
        try:
            header = reader.feed(data)
        except ProxyHeaderInvalid:
            return False
        if header is None or header.source is None:
            return header is not None
        data = reader.rest
    return data.startswith(_HANDSHAKE) and _HTTP in data
