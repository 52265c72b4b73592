"""Posts to the local command server: what is kept, who is told, and what the poster is answered.

A store that keeps posted commands has them before anybody looks for them; what no store keeps is held in memory while
its post waits, here and on the other workers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import trio
from attrs import evolve

from wazuh_comms_trio.backends.interfaces import Command, CommandStore
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.services.commands.lookup_queue import LookupQueue
from wazuh_comms_trio.services.commands.other_workers import OtherWorkers
from wazuh_comms_trio.services.commands.posted_commands import DeliveredCommands, Post, PostedCommands

__all__ = ["POST_LIMIT", "Posts"]

#: Seconds from a post to its answer; the answer must be out at 2 s.
POST_LIMIT: Final = 1.8


class Posts:
    """``delivered``: what was delivered lately, by any worker; ``held``: posted commands that no store keeps."""

    def __init__(self, store: CommandStore, lookups: LookupQueue, other_workers: OtherWorkers) -> None:
        self._store = store
        self._lookups = lookups
        self._other_workers = other_workers
        self._waiting: set[Post] = set()
        self.delivered: DeliveredCommands = DeliveredCommands()
        self.held: PostedCommands = PostedCommands()

    async def post(self, commands: Sequence[Command], *, within: float = POST_LIMIT) -> Sequence[Command]:
        """Those of ``commands`` whose delivery was confirmed before the answer, in order, and groups once their
        children are stored; commands for servers and those that aren't pending are left alone. Where the store
        doesn't keep posted commands, the rest is forgotten, but for what is being delivered just now. ``within``:
        seconds until the answer. Raises ``BackendUnavailable``."""
        ours = {
            command.document_id: command
            for command in map(_with_plain_id, commands)
            if command.target.type != "server" and command.status == "pending"
        }
        limit = trio.current_time() + min(within, POST_LIMIT)
        kept = [command for command in ours.values() if self._store.keeps_posted or command.target.type == "group"]
        agent_ids = {command.target.id for command in ours.values() if command.target.type == "agent"}
        expecting = self._lookups.expecting(agent_ids, kept=self._store.keeps_posted)
        with trio.CancelScope(deadline=limit) as scope, expecting:
            known = {command.document_id: command for command in (await self._store.add(kept) if kept else ())}
        if scope.cancelled_caught:
            raise BackendUnavailable
        stored_for = {command.target.id for command in known.values() if command.target.type == "agent"}
        self._lookups.schedule(stored_for, new=True)
        self._other_workers.news(stored_for)
        waiting = [command for command in ours.values() if self._is_open(known.get(command.document_id, command))]
        await self._wait_for_deliveries(waiting, limit)
        return [answer for command in ours.values() if (answer := self._answer(command, known)) is not None]

    def _is_open(self, command: Command) -> bool:
        """Whether a command may still be delivered; ``command`` as it is stored, where it is."""
        return (
            command.target.type == "agent" and command.status == "pending" and command.document_id not in self.delivered
        )

    def _answer(self, command: Command, known: Mapping[str, Command]) -> Command | None:
        stored = known.get(command.document_id, command)
        if stored.status != "pending":
            return stored if stored.sent_at is not None or stored.status in ("sent", "success") else None
        return evolve(stored, status="sent") if command.document_id in self.delivered else None

    async def _wait_for_deliveries(self, commands: Collection[Command], limit: float) -> None:
        if not commands:
            return
        post = Post({command.document_id for command in commands})
        in_memory = [] if self._store.keeps_posted else list(commands)
        self._waiting.add(post)
        if in_memory:
            self._other_workers.hold(in_memory, max(0.0, limit - trio.current_time()))
        self.hold(in_memory)
        try:
            with trio.move_on_at(limit):
                await post.complete.wait()
        finally:
            self._waiting.discard(post)
            self.withdraw(in_memory)
            if in_memory:
                self._other_workers.withdraw(in_memory)

    def hold(self, commands: Sequence[Command]) -> None:
        """Holds commands that a post waits for, here or on another worker, and that no store keeps. Until
        ``withdraw``."""
        for command in commands:
            self.held.hold(command)
        self._lookups.schedule({command.target.id for command in commands}, new=True)

    def withdraw(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self.held.withdraw(command)

    # --- what becomes of them ---

    def confirm_delivery(self, commands: Sequence[Command]) -> None:
        """Notes that an agent has these commands: the posts that wait for them may be answered."""
        for command in commands:
            self.delivered.note(command)
        self.held.drop(commands)
        self._complete(command.document_id for command in commands)

    def handle_delivered(self, document_ids: Mapping[str, float]) -> None:
        """Notes that another worker has delivered these commands, id -> timeout."""
        for document_id, timeout in document_ids.items():
            self.delivered.add(document_id, timeout)
        self.held.drop(self.held.commands(document_ids))
        self._complete(document_ids)

    def handle_freed(self, document_ids: Collection[str]) -> None:
        """Another worker had the right to deliver these commands, and has it no more."""
        self._lookups.schedule({command.target.id for command in self.held.commands(document_ids)})

    def _complete(self, document_ids: Iterable[str]) -> None:
        delivered = set(document_ids)
        for post in self._waiting:
            post.missing -= delivered
            if not post.missing:
                post.complete.set()


def _with_plain_id(command: Command) -> Command:
    """A command with its agent's id in lower case, by which agents are known."""
    target = command.target
    if target.type != "agent" or target.id == target.id.lower():
        return command
    return evolve(command, target=evolve(target, id=target.id.lower()))
