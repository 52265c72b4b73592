"""In which groups an agent may be at a moment: what the registry was seen to say, and changes that were under way."""

from __future__ import annotations

from collections.abc import Collection
from math import inf

import trio
from attrs import define

__all__ = ["GroupChange", "GroupHistory"]


@define(eq=False)
class GroupChange:
    """From when on it may have been carried out, and until when; ``document_id``: of the command by which it is."""

    groups: frozenset[str]
    made: float
    settled: float = inf
    document_id: str = ""


class GroupHistory:
    """An agent's. In force at a moment is what was seen last before it, or what a change made that may have come
    since."""

    def __init__(self, groups: Collection[str]) -> None:
        self._seen: list[tuple[float, frozenset[str]]] = [(-inf, frozenset(groups))]
        self.changes = [GroupChange(frozenset(groups), -inf, -inf)]
        self.came: list[GroupChange] = []  # with commands, in the order in which the agent was given these

    def begins(self, groups: Collection[str], document_id: str = "") -> GroupChange:
        """A change that may be carried out from now on, until it is ``settled``."""
        change = GroupChange(frozenset(groups), trio.current_time(), document_id=document_id)
        self.changes.append(change)
        return change

    def note_came(self, document_id: str) -> None:
        """The agent was given the command."""
        self.came += [change for change in self.changes if change.document_id == document_id]

    def settle(self, change: GroupChange) -> None:
        """It has been carried out, or never will be."""
        change.settled = min(change.settled, trio.current_time())

    def unsettle(self) -> None:
        """After a power cut what wasn't synced is undone."""
        for change in self.changes:
            change.settled = inf

    def see(self, groups: Collection[str]) -> None:
        """What the registry says now."""
        if self._seen[-1] != (moment := trio.current_time(), frozenset(groups)):
            self._seen.append((moment, frozenset(groups)))

    def possible(self, begin: float, end: float) -> set[frozenset[str]]:
        """What was in force at any moment from ``begin`` to ``end``, and maybe more."""
        base = max(moment for moment, _ in self._seen if moment <= begin)
        found = {groups for moment, groups in self._seen if base <= moment <= end}
        return found | {change.groups for change in self.changes if change.made <= end and change.settled >= base}

    def is_in(self, group: str, begin: float, end: float) -> bool | None:
        """Whether the agent was in the group all that time (True) or never (False)."""
        found = {group in groups for groups in self.possible(begin, end)}
        return found.pop() if len(found) == 1 else None

    def is_alone(self, change: GroupChange) -> bool:
        """Whether no other change was under way since this one was made."""
        return all(each is change or each.settled < change.made for each in self.changes)
