"""Somebody follows what a node with embedded stores takes, as ``wazuh-comms events tail --follow`` does beside it: what
is there is shown soon, each record once, and no damage where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.stores.embedded import EmbeddedStores
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.embedded.ndjson.damage import Damage
from wazuh_comms_trio.backends.embedded.reader import EventTail, TailedEvent, tail_events

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Tail"]

#: Seconds between its looks, and between ours at what it has shown.
_INTERVALS: Final = (0.25, 1.0, 3.0)
_COMPARED: Final = 5.0
#: Seconds beyond an interval by which it has shown what was there.
_SLACK: Final = 0.5

Document = tuple[str | None, str | None]


class Tail:
    """The operator's program goes with its machine, and is started again with that."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._interval = Random(f"{world.plan.seed} tail").choice(_INTERVALS)
        self._shown = _Shown()
        self._scope = trio.CancelScope()

    def end(self) -> None:
        """The power goes."""
        self._scope.cancel()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            async with self._stores.used():  # the machine is on
                pass
            self._shown = shown = _Shown()
            with trio.CancelScope() as self._scope:
                following = tail_events(self._folder, follow=True, interval=self._interval, on_damage=self._note_damage)
                async with aclosing(following) as events:
                    async for event in events:
                        shown.note(event)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(_COMPARED)
            await self.check()

    async def check(self) -> None:
        """What is there now is shown soon, unless the machine goes, or what changed is replaced again before that."""
        shown, there = self._shown, self._there()
        await trio.sleep(self._interval + _SLACK)
        now = self._there()
        if self._shown is not shown or self._stores.disk.image is not None:
            return
        self._world.trace.strike("follows", "tail", f"{shown.records.total()} records")
        # What has gone for others' room since may have gone before it was looked for.
        stay = there.records & now.records if self._world.event_quota.deletes else there.records
        if missing := stay - shown.records:
            raise Violation("tail", f"what was there isn't shown: {_few(missing)}")
        same = there.documents.items() & now.documents.items()
        if missing_documents := same - shown.documents.items():
            raise Violation("tail", f"documents that were there aren't shown: {_few(missing_documents)}")
        if not self._world.event_quota.deletes and (more := shown.records - now.records):
            raise Violation("tail", f"what isn't there was shown, or twice: {_few(more)}")

    def _there(self) -> _Shown:
        """What a program shows that begins now."""
        found = _Shown()
        for event in EventTail.of(self._folder).poll():
            found.note(event)
        return found

    def _note_damage(self, damage: Damage) -> None:
        raise Violation("tail", f"nothing was damaged, and it says: {damage}")

    @property
    def _stores(self) -> EmbeddedStores:
        assert isinstance(self._world.stores, EmbeddedStores)
        return self._world.stores

    @property
    def _folder(self) -> Path:
        return self._stores.folder


class _Shown:
    """Events of records, and the last that was shown of each document."""

    def __init__(self) -> None:
        self.records = Counter[tuple[float, bytes]]()
        self.documents: dict[Document, tuple[int | None, bytes | None]] = {}

    def note(self, event: TailedEvent) -> None:
        if event.kind == "stateful":
            self.documents[event.index, event.document_id] = event.version, event.data
        else:
            self.records[event.received, event.encode()] += 1


def _few(found: Iterable[object]) -> str:
    return "; ".join(map(str, sorted(found, key=str)[:2]))[:400]
