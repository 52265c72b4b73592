"""Who of a node's processes looks into a store that they all share, and how the others learn what was found.

A look costs the same however many processes wait for its outcome. So one of them is on duty: it looks, and tells the
others. What is told is between one process's store and its twin in another: JSON objects, whose meaning is the store's.
Messages may be lost with the process that sent them, and a store must be right all the same, only later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import trio
from attrs import frozen

__all__ = ["Finding", "Lookout"]

logger = logging.getLogger(__name__)

Finding = Mapping[str, Any]


@frozen
class _Store:
    found: Callable[[Finding], None]
    asked: Callable[[Finding], None]
    changed: Callable[[], None]


class Lookout:
    """Alone, and so on duty, unless somebody says otherwise. A store calls ``attend`` once, for each kind of thing that
    it looks for (``topic``), and then looks while it is ``on_duty``."""

    def __init__(self, *, on_duty: bool = True) -> None:
        self._on_duty = on_duty
        self._duty = trio.Event()
        if on_duty:
            self._duty.set()
        self._stores: dict[str, _Store] = {}

    # --- for the stores

    def attend(
        self,
        topic: str,
        *,
        found: Callable[[Finding], None] | None = None,
        asked: Callable[[Finding], None] | None = None,
        changed: Callable[[], None] | None = None,
    ) -> None:
        """``found`` is called with what another process found; ``asked``, on duty, with what another one wants found;
        ``changed`` when ``on_duty`` has changed, or another one took over who knows nothing of what is wanted here."""
        self._stores[topic] = _Store(found or _ignore, asked or _ignore, changed or _do_nothing)

    @property
    def on_duty(self) -> bool:
        return self._on_duty

    async def wait_duty(self) -> None:
        """Returns when this process is on duty."""
        await self._duty.wait()

    def tell(self, topic: str, finding: Finding) -> None:
        """To every other process. Doesn't block."""

    def ask(self, topic: str, wish: Finding) -> None:
        """To the one on duty. Doesn't block."""

    # --- for who connects the processes

    def set_duty(self, on_duty: bool) -> None:
        """This process is on duty now, or another one is; said again when yet another one takes over."""
        self._on_duty = on_duty
        if on_duty:
            self._duty.set()
        elif self._duty.is_set():
            self._duty = trio.Event()
        for store in self._stores.values():
            store.changed()

    def take_finding(self, topic: str, finding: Finding) -> None:
        if (store := self._stores.get(topic)) is not None:
            _pass_on(store.found, topic, finding)

    def take_wish(self, topic: str, wish: Finding) -> None:
        if self._on_duty and (store := self._stores.get(topic)) is not None:
            _pass_on(store.asked, topic, wish)


def _pass_on(take: Callable[[Finding], None], topic: str, finding: Finding) -> None:
    try:
        take(finding)
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        # The other process's code may be of another version; what it has found, this one will find itself one day.
        logger.warning("what another worker says of %s isn't understood: %r", topic, exc)


def _ignore(_: Finding) -> None: ...


def _do_nothing() -> None: ...
