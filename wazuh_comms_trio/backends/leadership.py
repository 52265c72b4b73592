"""Which of a node's processes searches a store that they all share, and how the others learn what it found.

A search costs the same however many processes wait for its outcome. So one process is the leader: it searches, and
publishes what it found. A message goes from one process's store to the same store in another process: a JSON object,
whose meaning is the store's. Messages may be lost with the process that sent them; a store must be right all the same,
only later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import trio
from attrs import frozen

__all__ = ["Finding", "Leadership"]

logger = logging.getLogger(__name__)

Finding = Mapping[str, Any]


@frozen
class _Subscriber:
    """The callbacks of one store."""

    on_finding: Callable[[Finding], None]
    on_request: Callable[[Finding], None]
    on_change: Callable[[], None]


class Leadership:
    """One process's part. By itself it is that of a process which is alone, and so the leader; a subclass connects
    processes. A store calls ``register`` once for each kind of thing that it searches for (``topic``), and then
    searches while it ``is_leader``."""

    def __init__(self, *, leader: bool = True) -> None:
        self._is_leader = leader
        self._elected = trio.Event()
        if leader:
            self._elected.set()
        self._subscribers: dict[str, _Subscriber] = {}

    # --- for the stores

    def register(
        self,
        topic: str,
        *,
        on_finding: Callable[[Finding], None] | None = None,
        on_request: Callable[[Finding], None] | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """``on_finding`` is called with what the leader found; ``on_request``, in the leader, with what another process
        wants to be searched for; ``on_change`` when ``is_leader`` has changed, or when another process took over,
        which knows nothing yet of what is wanted here."""
        self._subscribers[topic] = _Subscriber(on_finding or _ignore, on_request or _ignore, on_change or _do_nothing)

    @property
    def is_leader(self) -> bool:
        return self._is_leader

    async def wait_until_leader(self) -> None:
        """Returns when this process is the leader."""
        await self._elected.wait()

    def publish(self, topic: str, finding: Finding) -> None:
        """Sends a finding to every other process. Doesn't block."""

    def ask_leader(self, topic: str, request: Finding) -> None:
        """Sends a request to the leader. Doesn't block."""

    # --- for what connects the processes

    def set_leader(self, leader: bool) -> None:
        """This process is the leader now, or another one is; called again when yet another one takes over."""
        self._is_leader = leader
        if leader:
            self._elected.set()
        elif self._elected.is_set():
            self._elected = trio.Event()
        for subscriber in self._subscribers.values():
            subscriber.on_change()

    def handle_finding(self, topic: str, finding: Finding) -> None:
        """Another process published this finding."""
        if (subscriber := self._subscribers.get(topic)) is not None:
            _call(subscriber.on_finding, topic, finding)

    def handle_request(self, topic: str, request: Finding) -> None:
        """Another process sent the leader this request."""
        if self._is_leader and (subscriber := self._subscribers.get(topic)) is not None:
            _call(subscriber.on_request, topic, request)


def _call(callback: Callable[[Finding], None], topic: str, message: Finding) -> None:
    try:
        callback(message)
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        # The other process's code may be of another version; what it found, this process will find itself one day.
        logger.warning("what another worker says of %s isn't understood: %r", topic, exc)


def _ignore(_: Finding) -> None: ...


def _do_nothing() -> None: ...
