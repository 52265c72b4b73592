"""The server's side of TLS over any trio stream.

trio's ``SSLStream`` would do, but for three things: it drops the alert that tells a client why its handshake failed; it
can't put its close_notify into the reply's own segment, so that proper ends cost a system call and a packet more, or
aren't proper; and it pays, on every call, for being used by several tasks at once, which never happens here.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, cast

import trio

__all__ = ["HandshakeRefused", "TlsStream", "handshake_cause"]

RECEIVE_BYTES: Final = 65536
#: Failures that the client gets an alert for: it speaks TLS, but not as the context demands. After others the
#: connection is closed without one.
ALERTED: Final = frozenset(
    {
        "CERTIFICATE_VERIFY_FAILED",
        "INAPPROPRIATE_FALLBACK",
        "NO_PROTOCOLS_AVAILABLE",
        "NO_SHARED_CIPHER",
        "NO_SHARED_GROUPS",
        "NO_SHARED_SIGNATURE_ALGORITHMS",
        "NO_SUITABLE_KEY_SHARE",
        "NO_SUITABLE_SIGNATURE_ALGORITHM",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "UNSUPPORTED_PROTOCOL",
        "VERSION_TOO_LOW",
    }
)

#: Why a handshake failed, for operators, by OpenSSL's reason.
_CAUSES: Final = {
    "CERTIFICATE_VERIFY_FAILED": "bad_client_certificate",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_client_certificate",
    "INAPPROPRIATE_FALLBACK": "protocol_version",
    "NO_PROTOCOLS_AVAILABLE": "protocol_version",
    "UNSUPPORTED_PROTOCOL": "protocol_version",
    "VERSION_TOO_LOW": "protocol_version",
    "NO_SHARED_CIPHER": "nothing_in_common",
    "NO_SHARED_GROUPS": "nothing_in_common",
    "NO_SHARED_SIGNATURE_ALGORITHMS": "nothing_in_common",
    "NO_SUITABLE_KEY_SHARE": "nothing_in_common",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "nothing_in_common",
    "HTTP_REQUEST": "plain_http",
    "HTTPS_PROXY_REQUEST": "plain_http",
    "WRONG_VERSION_NUMBER": "not_tls",
    "UNEXPECTED_MESSAGE": "not_tls",
    "UNKNOWN_PROTOCOL": "not_tls",
}


def handshake_cause(error: BaseException) -> str:
    """Why a handshake failed, in a word: ``left``, ``distrusts_us`` (the client doesn't take our certificate), another
    word of ``_CAUSES``, or ``other``."""
    cause = error.__cause__
    if not isinstance(cause, ssl.SSLError) or isinstance(cause, ssl.SSLEOFError):
        return "left"
    reason = cause.reason or ""
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return "distrusts_us"
    return "left" if reason == "UNEXPECTED_EOF_WHILE_READING" else _CAUSES.get(reason, "other")


class HandshakeRefused(trio.BrokenResourceError):
    """The client was sent an alert, which it can read unless the connection is reset."""


class TlsStream(trio.abc.Stream):
    """One task at a time. ``receive_some`` takes an end without close_notify for an end: agents send none.

    Errors are trio's, with OpenSSL's as the cause. Cancelled while sending, the stream is broken; while receiving,
    nothing is lost.
    """

    __slots__ = ("_incoming", "_object", "_outgoing", "transport")

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext) -> None:
        self.transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def do_handshake(self, first: bytes | bytearray = b"") -> None:
        """Does the handshake; ``first``: what was received already. Raises ``HandshakeRefused`` when the client was
        sent an alert, else ``BrokenResourceError``.
        """
        if first:
            self._incoming.write(first)
        else:
            await self._fetch()  # the client begins
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fetch()
            except (ssl.SSLError, ssl.CertificateError) as error:
                if getattr(error, "reason", None) not in ALERTED:
                    raise trio.BrokenResourceError from error
                await self._flush()
                raise HandshakeRefused from error
            else:
                await self._flush()
                return

    def certificate_names(self) -> frozenset[str]:
        """The names in the client's verified certificate, lower case: its common names, DNS names, and what follows
        ``urn:uuid:`` in its URIs. None without one.
        """
        certificate = cast(Mapping[str, Any], self._object.getpeercert() or {})
        common = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
        others = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI")]
        return frozenset(name.lower().removeprefix("urn:uuid:") for name in (*common, *others))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        limit = RECEIVE_BYTES if max_bytes is None else max_bytes
        while True:
            try:
                data = self._object.read(limit)
                # OpenSSL gives one record at a time, 16 KiB; each trip through the layers above costs as much as four.
                return self._read_more(data, limit) if data and self._incoming.pending else data
            except ssl.SSLWantReadError:
                await self._flush()  # an answer to the peer's key update
                await self._fetch()
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):  # the latter when we have sent our end, too
                return b""
            except (ssl.SSLError, ssl.CertificateError) as error:
                raise trio.BrokenResourceError from error

    def _read_more(self, data: bytes, limit: int) -> bytes:
        pieces = [data]
        limit -= len(data)
        with suppress(ssl.SSLError):  # nothing more for now; or a failure, which the next call meets again
            while limit > 0 and (piece := self._object.read(limit)):
                pieces.append(piece)
                limit -= len(piece)
        return b"".join(pieces)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            self._encrypt(data)
        await self._flush()

    def seal(self, data: bytes | bytearray | memoryview, *, last: bool) -> bytes:
        """What has to be sent for ``data``, and goes over ``transport`` before anything else does. The ``last`` bytes
        have the close_notify with them that makes them an end; receiving goes on."""
        if data:
            self._encrypt(data)
        if last:
            with suppress(ssl.SSLError):  # "want read": for the peer's own close_notify, which isn't waited for
                self._object.unwrap()
        return self._outgoing.read()

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Closes at once, without a close_notify."""
        await self.transport.aclose()

    def _encrypt(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._object.write(data)
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise trio.BrokenResourceError from error

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self.transport.send_all(self._outgoing.read())

    async def _fetch(self) -> None:
        data = await self.transport.receive_some(RECEIVE_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
