"""A daemon as the transport knows it: where it lives, how its frames look, whether a connection may be used again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypedDict

from wazuh_comms_trio.wire.framing import HEADER_FORMAT, header_struct

HOME: Final[str] = "/var/ossec"

#: How a socket is talked to: in frames, in datagrams, by HTTP, or by text without frames until the end of the stream.
Kind: TypeAlias = Literal["stream", "datagram", "http", "unframed"]
#: What a daemon understands.
Content: TypeAlias = Literal["any", "json", "text"]

_KINDS: Final = ("stream", "datagram", "http", "unframed")
#: Other releases' name of a daemon -> its name here.
ALIASES: Final[Mapping[str, str]] = {"wazuh-manager-db": "wazuh-db"}


class DaemonEntry(TypedDict):
    """A daemon in the framework's shape. ``size`` is the header's, in bytes."""

    protocol: str
    path: str
    header_format: str
    size: int


@dataclass(frozen=True)
class Daemon:
    """One daemon. ``paths`` are relative to the home folder (or absolute), tried in order.

    ``reusable``: a connection takes many requests, which may be pipelined in order (wazuh-db). Otherwise the daemon
    answers one request and closes. ``kind``: frames on a stream, datagrams, HTTP, or text without frames that ends with
    the stream. ``content``: what it understands, text, JSON or both.
    """

    name: str
    paths: tuple[str, ...]
    reusable: bool = False
    kind: Kind = "stream"
    header_format: str = HEADER_FORMAT
    content: Content = "any"

    def __post_init__(self) -> None:
        if not self.name or not self.paths or type(self.paths) is not tuple:
            raise ValueError("a daemon needs a name and a tuple of at least one path")
        if self.kind not in _KINDS:
            raise ValueError(f"a daemon's kind is one of {', '.join(_KINDS)}, not {self.kind!r}")
        header_struct(self.header_format)

    @property
    def header_size(self) -> int:
        """The header's length in bytes."""
        return header_struct(self.header_format).size

    def places(self, home: str | os.PathLike[str] = HOME) -> tuple[str, ...]:
        """Every path that it may be at."""
        return tuple(os.path.join(os.fspath(home), path) for path in self.paths)

    def entry(self, home: str | os.PathLike[str] = HOME) -> DaemonEntry:
        """The daemon in the framework's shape."""
        protocol = "UDP" if self.kind == "datagram" else "TCP"
        return {
            "protocol": protocol,
            "path": self.places(home)[0],
            "header_format": self.header_format,
            "size": self.header_size,
        }
