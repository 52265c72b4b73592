"""What a server refuses by itself, and the shape of a reply that isn't a success. What such a reply says is the API's
to decide: a listener is handed a ``Describe``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import field, frozen

from wazuh_comms_trio.errors import CommsError

__all__ = [
    "CodingUnsupported",
    "Describe",
    "HeadTooLarge",
    "Headers",
    "MethodNotAllowed",
    "Refusal",
    "RouteUnknown",
    "ServerError",
]

Headers = tuple[tuple[bytes, bytes], ...]


class RouteUnknown(CommsError):
    """404: no such path."""

    default_code = 404
    default_message = "Not found"


class MethodNotAllowed(CommsError):
    """405: the path exists, for other methods: ``allowed``."""

    default_code = 405
    default_message = "Method not allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__()
        self.allowed = ", ".join(allowed)


class CodingUnsupported(CommsError):
    """415: the body is in a coding (``Content-Encoding``) that isn't undone here."""

    default_code = 415
    default_message = "The body's content coding is not supported"


class HeadTooLarge(CommsError):
    """431: more bytes than ``limits.head_bytes`` before the blank line."""

    default_code = 431
    default_message = "The request head is too large"


class ServerError(CommsError):
    """500: our fault. What it was is in the log, not in the reply."""

    default_code = 500
    default_message = "Internal server error"


@frozen
class Refusal:
    """One reply that isn't a success: JSON, complete. ``is_bug``: its error is none that clients are told of, and
    belongs in the log with its traceback.
    """

    status: int
    body: bytes
    headers: Headers = ()
    summary: str = field(default="", eq=False)  # for the log's one line
    is_bug: bool = field(default=False, eq=False)

    @property
    def all_headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self.body)).encode()),
            *self.headers,
        ]


#: Every error becomes a reply; one that isn't known becomes a 500 that says nothing of it.
Describe = Callable[[BaseException], Refusal]
