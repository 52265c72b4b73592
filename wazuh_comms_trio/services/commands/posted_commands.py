"""Commands that were posted to the local command server: what was delivered, and what waits in memory. Synchronous."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import trio
from attrs import define, field

from wazuh_comms_trio.backends.interfaces import Command
from wazuh_comms_trio.foundation.caches.expiring_ids import ExpiringIds

__all__ = ["DeliveredCommands", "Post", "PostedCommands"]

# An id and two numbers are some 250 bytes: at most 25 MB.
_MAX_REMEMBERED: Final = 100_000


class DeliveredCommands(ExpiringIds):
    """Ids of commands whose delivery was confirmed, each until its timeout has passed."""

    def __init__(self) -> None:
        super().__init__(_MAX_REMEMBERED)

    def note(self, command: Command) -> None:
        self.add(command.document_id, command.timeout)


@define(eq=False)
class Post:
    """One call that waits for deliveries. ``missing``: ids that aren't confirmed yet."""

    missing: set[str]
    complete: trio.Event = field(factory=trio.Event)


@define(eq=False)
class _Held:
    """A posted command in memory. ``posts``: how many calls wait for it; it isn't kept for longer than they do, unless
    it is ``in_delivery``: then until the delivery is decided."""

    command: Command
    posts: int = 0
    in_delivery: bool = False


class PostedCommands:
    """Posted commands that no store keeps, by agent, while their posts wait."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, _Held]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def hold(self, command: Command) -> None:
        held = self._held.setdefault(command.target.id, {})
        held.setdefault(command.document_id, _Held(command)).posts += 1

    def withdraw(self, command: Command) -> None:
        """Forgets a post that has stopped waiting."""
        held = self._held.get(command.target.id, {}).get(command.document_id)
        if held is not None:
            held.posts -= 1
            self._drop_unwanted(held)

    def free(self, agent_ids: Iterable[str]) -> list[str]:
        """The ids of commands that could be delivered to these agents, if this worker may."""
        return [
            document_id
            for agent_id in agent_ids
            for document_id, held in self._held.get(agent_id, {}).items()
            if not held.in_delivery
        ]

    def commands(self, document_ids: Collection[str]) -> list[Command]:
        """The commands of these ids that are held."""
        return [
            held.command
            for of_agent in self._held.values()
            for document_id, held in of_agent.items()
            if document_id in document_ids
        ]

    def take(self, agent_id: str, at_most: int, allowed: Collection[str]) -> list[Command]:
        """Takes commands that can be delivered to the agent now, of the ids in ``allowed``."""
        of_agent = self._held.get(agent_id, {})
        free = [held for document_id, held in of_agent.items() if not held.in_delivery and document_id in allowed]
        free = free[: max(0, at_most)]
        for held in free:
            held.in_delivery = True
        return [held.command for held in free]

    def drop(self, commands: Iterable[Command]) -> None:
        """Forgets commands that are delivered, or that somebody else keeps."""
        for command in commands:
            self._drop(command)

    def put_back(self, commands: Iterable[Command]) -> None:
        """Puts back commands whose delivery came to nothing."""
        for command in commands:
            held = self._held.get(command.target.id, {}).get(command.document_id)
            if held is not None:
                held.in_delivery = False
                self._drop_unwanted(held)

    def _drop_unwanted(self, held: _Held) -> None:
        if held.posts <= 0 and not held.in_delivery:
            self._drop(held.command)

    def _drop(self, command: Command) -> None:
        of_agent = self._held.get(command.target.id)
        if of_agent is not None:
            of_agent.pop(command.document_id, None)
            if not of_agent:
                del self._held[command.target.id]
