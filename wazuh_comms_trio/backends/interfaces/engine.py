"""The engine, which takes stateless events and scans."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Protocol

from attrs import frozen

from wazuh_comms_trio.errors import EngineRefused

__all__ = ["BodyRefused", "ConsumedBody", "Engine", "EngineReply"]


@frozen
class EngineReply:
    status: int
    body: bytes
    content_type: str = "application/json"


@frozen
class ConsumedBody:
    """What an engine had taken of a body that it refused: ``size`` bytes from ``start`` on of the file behind
    ``descriptor``, which is the receiver's to close (None: there is no file), then ``rest``."""

    descriptor: int | None
    start: int
    size: int
    rest: bytes


class BodyRefused(EngineRefused):
    """``EngineRefused`` of an engine that keeps what it had taken of the body."""

    def __init__(self, message: str, consumed: ConsumedBody) -> None:
        super().__init__(message)
        self.consumed = consumed


class Engine(Protocol):
    """Where stateless events and scans go."""

    #: What ``send_events`` raises for a refused body is ``BodyRefused``: its caller needs no copy.
    keeps_refused: bool

    async def send_events(self, body: AsyncIterable[bytes], *, agent_id: str, length: int | None) -> None:
        """Streams one request's body, unchanged; returns when the engine has taken all of it. ``body`` stays the
        caller's, to read on and to close; what it raises goes through. Raises ``EngineRefused`` (never: quarantine it),
        ``EngineTimeout``, ``EngineSocketError``, ``EngineRequestError``, ``StorageFull``, ``BackendUnavailable``.
        """
        ...

    async def scan(self, request: bytes) -> EngineReply:
        """One vulnerability scan request (JSON). The engine's status and body, whatever they are; raises as above for
        no answer.
        """
        ...
