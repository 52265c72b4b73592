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


class RouteUnknown(CommsError, code=404, message="Not found"):
    """404: no such path."""


class MethodNotAllowed(CommsError, code=405, message="Method not allowed"):
    """405: the path exists, for other methods: ``allowed``."""

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__()
        self.allowed = ", ".join(allowed)


class CodingUnsupported(CommsError, code=415, message="The body's content coding is not supported"):
    """415: the body is in a coding (``Content-Encoding``) that isn't undone here."""


class HeadTooLarge(CommsError, code=431, message="The request head is too large"):
    """431: more bytes than ``limits.head_bytes`` before the blank line."""


class ServerError(CommsError, code=500, message="Internal server error"):
    """500: our fault. What it was is in the log, not in the reply."""


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
