"""Whole replies, as ASGI messages and as bytes."""

from __future__ import annotations

from typing import Final

from wazuh_comms_trio.foundation.log_context import REQUEST
from wazuh_comms_trio.http.server.hypercorn_protocol import Config, reply_head
from wazuh_comms_trio.http.server.listener_context import Send
from wazuh_comms_trio.http.server.refusals import Refusal

__all__ = ["encode_refusal", "request_id_header", "send_body", "send_empty", "send_refusal", "send_reply"]

JSON = b"application/json"
#: Of a long reply; whoever is in the middle of one counts as having read none of it.
PIECE_BYTES: Final = 64 * 1024


async def send_reply(
    send: Send, status: int, body: bytes, content_type: bytes = JSON, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    """Sends a whole reply."""
    all_headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode("ascii")), *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send_body(send, body)


async def send_body(send: Send, body: bytes) -> None:
    """Sends all of a reply's body, in one piece unless it is long: each piece is copied on its way."""
    start = 0
    while len(body) - start > PIECE_BYTES:
        await send({"type": "http.response.body", "body": body[start : start + PIECE_BYTES], "more_body": True})
        start += PIECE_BYTES
    await send({"type": "http.response.body", "body": body[start:], "more_body": False})


async def send_empty(send: Send, status: int) -> None:
    """Sends a reply without a body. A 204 says so by its number, anything else by its length."""
    headers = [] if status == 204 else [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_refusal(send: Send, refusal: Refusal) -> None:
    await send({"type": "http.response.start", "status": refusal.status, "headers": refusal.all_headers})
    await send({"type": "http.response.body", "body": refusal.body, "more_body": False})


def request_id_header() -> tuple[bytes, bytes]:
    return (b"x-request-id", (REQUEST.get() or "").encode("latin-1", "replace"))


def encode_refusal(refusal: Refusal, config: Config, *, with_body: bool = True) -> bytes:
    headers = refusal.all_headers
    if refusal.status >= 500:
        headers.append(request_id_header())
    return reply_head(refusal.status, headers, config) + (refusal.body if with_body else b"")
