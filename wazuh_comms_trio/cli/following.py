"""Commands looked at until they have ended, and a group's command as the counts of its children."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import trio
from attrs import frozen

from wazuh_comms_trio.backends.command_rules import parent_id
from wazuh_comms_trio.backends.interfaces import Command, CommandStore
from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.journal import printable

#: Seconds between two looks at the commands that are waited for.
_LOOK_INTERVAL: Final = 0.2
#: Seconds that the store may be unavailable meanwhile.
STORE_TIMEOUT: Final = 30.0
ENDED: Final = frozenset({"success", "failed"})


@frozen
class GroupProgress:
    """How many children of a group's command have which outcome. ``never_delivered``: failed without having been
    sent."""

    pending: int = 0
    sent: int = 0
    success: int = 0
    failed: int = 0
    never_delivered: int = 0

    @classmethod
    def of(cls, children: Iterable[Command]) -> GroupProgress:
        return cls(**Counter[str](map(_state, children)))

    @property
    def is_done(self) -> bool:
        return not self.pending and not self.sent

    @property
    def counts(self) -> str:
        """The counts in words, ``480 success, 12 failed, 8 never delivered``; counts of 0 are left out."""
        words = ("success", "failed", "never delivered", "sent", "pending")
        found = ((word, getattr(self, word.replace(" ", "_"))) for word in words)
        return ", ".join(f"{number} {word}" for word, number in found if number) or "no agents"

    @property
    def text(self) -> str:
        return f"{'done' if self.is_done else 'under way'}: {self.counts}"

    @property
    def document(self) -> dict[str, Any]:
        return {
            "done": self.is_done,
            "success": self.success,
            "failed": self.failed,
            "never_delivered": self.never_delivered,
            "sent": self.sent,
            "pending": self.pending,
        }


def _state(command: Command) -> str:
    return "never_delivered" if command.status == "failed" and command.sent_at is None else command.status


async def progress_of(store: CommandStore, commands: Iterable[Command]) -> dict[str, GroupProgress]:
    """Counts by document id, for those of ``commands`` that are groups'. Raises ``BackendUnavailable``."""
    groups: dict[str, list[Command]] = {one.document_id: [] for one in commands if one.target.type == "group"}
    for child in await store.children(list(groups)) if groups else ():
        groups[parent_id(child) or ""].append(child)
    return {document_id: GroupProgress.of(children) for document_id, children in groups.items()}


async def until_ended(store: CommandStore, command: Command, progress: Progress) -> Sequence[Command]:
    """The command, or a group's children, once each has ended, which every command does: by its result, or by its
    timeout. Raises ``Failure`` when it is gone, ``BackendUnavailable`` when the store is for half a minute."""
    started = answered = trio.current_time()
    while True:
        looked = trio.current_time()
        try:
            found = await _look(store, command)
        except BackendUnavailable as error:
            if looked - answered > STORE_TIMEOUT:
                raise
            progress.show(f"waiting: {error.message}")
        else:
            answered = looked
            if all(one.status in ENDED for one in found):
                return found
            is_group = command.target.type == "group"
            states = GroupProgress.of(found).counts if is_group else found[0].status
            progress.show(f"{states}, {trio.current_time() - started:.0f} s")
        await trio.sleep(max(_LOOK_INTERVAL, 2 * (trio.current_time() - looked)))  # of thousands, a look takes longer


async def _look(store: CommandStore, command: Command) -> Sequence[Command]:
    # Without a daemon no other process would end overdue commands.
    await store.expire()
    if command.target.type == "group":
        return await store.children([command.document_id])
    found = await store.get(command.document_id)
    if found is None:
        raise Failure(f"the command {command.document_id} is gone")
    return [found]


class Progress:
    """One line on stderr that is rewritten; where stderr isn't a terminal, a line for each change of state."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, text: str, *, notable: bool = True) -> None:
        """Shows a line; one that isn't ``notable`` is for a terminal alone."""
        if self._terminal:
            print(f"\r\x1b[K{printable(text)}", end="", file=sys.stderr, flush=True)
            self._shown = text
        elif notable and (state := text.rpartition(",")[0] or text) != self._shown:
            print(printable(state), file=sys.stderr, flush=True)
            self._shown = state


def outcomes(children: Collection[Command]) -> Sequence[Command]:
    """The children in order, those that are no success first: they are what one looks for."""
    return sorted(children, key=lambda one: (one.status == "success", one.target.id))
