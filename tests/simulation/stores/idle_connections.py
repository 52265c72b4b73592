"""What poll(2) says of a kept connection, of streams in memory: whether its peer has closed it, or said something
unasked."""

from __future__ import annotations

import select
from typing import Any

import trio

from tests.simulation.nodes.network import SimStream
from wazuh_comms_trio.http.client import connection

__all__ = ["use_memory_streams"]


class _Descriptor(int):
    stream: SimStream


class _Socket:
    """In the place of a ``SimStream``'s socket."""

    def __init__(self, stream: SimStream) -> None:
        self._stream = stream

    def fileno(self) -> int:
        descriptor = _Descriptor(-1 if self._stream._closed else self._stream.number)
        descriptor.stream = self._stream
        return descriptor

    def close(self) -> None:
        self._stream.close()


class _Poll:
    def register(self, descriptor: _Descriptor, events: int) -> None:
        self._descriptor = descriptor

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        return [(self._descriptor, select.POLLIN)] if self._descriptor.stream.has_news else []


class _Select:
    POLLIN = select.POLLIN
    poll = _Poll


def use_memory_streams() -> None:
    """Once: in the place of descriptors, of which the mock clock knows nothing."""
    of_sockets = connection._socket_of

    def socket_of(stream: trio.abc.Stream) -> Any:
        return _Socket(stream) if isinstance(stream, SimStream) else of_sockets(stream)

    replacements: list[tuple[str, Any]] = [("_socket_of", socket_of), ("select", _Select)]
    for name, replacement in replacements:
        setattr(connection, name, replacement)
