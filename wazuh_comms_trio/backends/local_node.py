"""This node, as other nodes on the same indexer get to know it, and what it finds out about them."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import trio
from attrs import define, field

__all__ = ["NODE_KINDS", "OWN_KEY_REVOKED", "LocalNode"]

#: Of warnings about other nodes and the indexer that they share.
NODE_KINDS: Final = ("keys", "revoked", "files", "clock", "indexer_disk")
#: Of the kind ``revoked``.
OWN_KEY_REVOKED: Final = (
    "the key that this node signs tokens with was revoked: other nodes refuse its agents; change it, with "
    "`wazuh-comms keys rotate`"
)


def _ignore(_: Mapping[str, float]) -> None: ...


async def _no_files() -> Mapping[str, str]:
    await trio.lowlevel.checkpoint()
    return {}


async def _keep_nothing(_: Mapping[str, float]) -> None:
    await trio.lowlevel.checkpoint()


@define(eq=False)
class LocalNode:
    """``id`` is the same after a restart. ``key``: the id of the key that signs tokens; ``accepted``: those of all
    keys whose tokens are good. ``revoke`` is called with keys that another node's operator revoked: since when
    (epoch seconds), by id; ``keep_revoked`` likewise, by one of the node's processes, so that a restart knows.
    ``files``: digests of the group files, by name. ``warnings``: what is found out about others, by kind and by what it
    is about."""

    id: str
    name: str
    key: str
    accepted: Callable[[], Sequence[str]] = list
    revoke: Callable[[Mapping[str, float]], None] = _ignore
    keep_revoked: Callable[[Mapping[str, float]], Awaitable[None]] = _keep_nothing
    files: Callable[[], Awaitable[Mapping[str, str]]] = _no_files
    warnings: dict[str, dict[str, str]] = field(factory=dict)

    @classmethod
    def of(cls, port: int, command_socket: str, key: str, accepted: Callable[[], Sequence[str]] = list) -> LocalNode:
        host = socket.gethostname()
        return cls(f"{host}:{port}:{command_socket}"[:500], f"{host}:{port}", key, accepted)
