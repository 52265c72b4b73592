"""The command store in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Protocol

import trio
from attrs import evolve

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.interfaces import Command, CommandReport, CommandStatus, ItemResult
from wazuh_comms_trio.backends.memory.faults import Faults


class _Agents(Protocol):
    """The part of the registry that commands need."""

    def members_now(self, group: str) -> Sequence[str]: ...

    def apply_groups(self, agent_id: str, groups: Sequence[str], turn: int | None) -> bool: ...

    def next_group_turn(self, agent_id: str) -> int: ...


class MemoryCommands:
    """``CommandStore`` in a dictionary, ``stored``: document id -> command, in the order they came."""

    def __init__(self, agents: _Agents, wall_clock: Callable[[], float]) -> None:
        self.stored: dict[str, Command] = {}
        self.claimed: set[str] = set()
        self.keeps_posted = True
        self.faults = Faults()
        self._agents = agents
        self._now = wall_clock
        self._offered: set[str] = set()
        self._group_turns: dict[str, int] = {}  # see the embedded store's schema
        self._news: set[str] = set()
        self._arrived = trio.Event()

    async def add(self, commands: Sequence[Command]) -> Sequence[Command]:
        await self.faults.strike("add")
        return [self._add(command) for command in commands]

    def _add(self, command: Command) -> Command:
        now = self._now()
        command = rules.normalized(command, now)
        if not rules.is_ours(command):
            return command
        present = self.stored.get(command.document_id)
        if present is not None:
            return present
        if rules.is_to_expand(command):
            command, children = rules.expand(command, self._agents.members_now(command.target.id), now)
            for child in children:
                self._add(child)
        self.stored[command.document_id] = command
        if command.status == "pending":
            self._announce(command.target.id)
        return command

    def _announce(self, agent_id: str) -> None:
        self._news.add(agent_id)
        self._arrived.set()

    async def wait_news(self) -> Collection[str]:
        await self.faults.strike("wait_news")
        while True:
            if not self._news:
                self._arrived = trio.Event()
                await self._arrived.wait()
            waiting = {command.target.id for command in self.stored.values() if self._is_unclaimed(command)}
            news, self._news = self._news & waiting, set()
            if news:
                return news

    def _is_unclaimed(self, command: Command) -> bool:
        is_agents = command.status == "pending" and command.target.type == "agent"
        return is_agents and command.document_id not in self.claimed

    def _is_free(self, command: Command) -> bool:
        return self._is_unclaimed(command) and not rules.is_overdue(command, self._now())

    async def claim(self, agent_ids: Collection[str]) -> Sequence[Command]:
        await self.faults.strike("claim")
        wanted = {agent_id.lower() for agent_id in agent_ids}
        free = [command for command in self.stored.values() if command.target.id in wanted and self._is_free(command)]
        free.sort(key=lambda command: command.created_at)  # stable: equal times keep their order
        counts: dict[str, int] = dict.fromkeys(wanted, 0)
        claimed = []
        for command in free:
            if counts[command.target.id] < rules.CLAIM_LIMIT:
                counts[command.target.id] += 1
                claimed.append(command)
        ids = {command.document_id for command in claimed}
        self.claimed |= ids
        self._offered |= ids
        for command in claimed:
            if rules.new_groups(command) is not None:
                self._group_turns[command.document_id] = self._agents.next_group_turn(command.target.id)
        return claimed

    async def mark_sent(self, document_ids: Collection[str]) -> None:
        await self.faults.strike("mark_sent")
        for document_id in document_ids:
            self.claimed.discard(document_id)
            command = self.stored.get(document_id)
            if command is None or command.status != "pending":
                continue
            self.stored[document_id] = evolve(command, status="sent", sent_at=self._now())
            self._apply_groups(command)

    async def release(self, document_ids: Collection[str]) -> None:
        await self.faults.strike("release")
        for document_id in document_ids:
            if document_id in self.claimed:
                self.claimed.discard(document_id)
                if self.stored[document_id].status == "pending":
                    self._announce(self.stored[document_id].target.id)

    async def report(self, reports: Sequence[CommandReport]) -> Sequence[ItemResult]:
        await self.faults.strike("report")
        return [self._report(report) for report in reports]

    def _report(self, report: CommandReport) -> ItemResult:
        command = self.stored.get(report.document_id)
        result, after = rules.apply_report(command, report.document_id in self._offered, report, self._now())
        if after is not None:
            self.stored[report.document_id] = after
            if rules.shows_delivery(command, report):
                self._apply_groups(after)
        return result

    def _apply_groups(self, command: Command) -> None:
        """What a ``set-group`` does, unless the groups of one that was claimed later are there."""
        groups = rules.new_groups(command)
        if groups is not None:
            turn = self._group_turns.get(command.document_id)
            self._agents.apply_groups(command.target.id, groups, turn)

    async def expire(self) -> None:
        await self.faults.strike("expire")
        now = self._now()
        for command in list(self.stored.values()):
            if command.document_id not in self.claimed and rules.is_overdue(command, now):
                self.stored[command.document_id] = rules.failed(command, rules.overdue_reason(command))

    async def get(self, document_id: str) -> Command | None:
        await self.faults.strike("get")
        return self.stored.get(document_id)

    async def list(
        self,
        *,
        status: CommandStatus | None = None,
        agent_id: str | None = None,
        limit: int = 1000,
        children: bool = True,
    ) -> Sequence[Command]:
        await self.faults.strike("list")
        agent_id = None if agent_id is None else agent_id.lower()
        found = [
            command
            for command in reversed(self.stored.values())
            if status in (None, command.status)
            and (agent_id is None or (command.target.type == "agent" and command.target.id == agent_id))
            and (children or self._parent_of(command) is None)
        ]
        found.sort(key=lambda command: -command.created_at)
        return found[:limit]

    async def pages(
        self, *, status: CommandStatus | None = None, agent_id: str | None = None, children: bool = True
    ) -> AsyncGenerator[Sequence[Command], None]:
        found = await self.list(status=status, agent_id=agent_id, limit=len(self.stored), children=children)
        for start in range(0, len(found), 2):
            yield found[start : start + 2]

    async def children(self, parents: Collection[str]) -> Sequence[Command]:
        await self.faults.strike("children")
        wanted = set(parents)
        return [command for command in self.stored.values() if self._parent_of(command) in wanted]

    def _parent_of(self, command: Command) -> str | None:
        parent = rules.parent_id(command)
        found = None if parent is None else self.stored.get(parent)
        return parent if found is not None and found.target.type == "group" else None

    async def cancel(self, document_id: str) -> Command | None:
        await self.faults.strike("cancel")
        children = [command for command in self.stored.values() if self._parent_of(command) == document_id]
        for command in [self.stored.get(document_id), *children]:
            if command is not None and command.status == "pending" and command.document_id not in self.claimed:
                self.stored[command.document_id] = rules.failed(command, rules.CANCELLED)
        return self.stored.get(document_id)

    def agent_removed(self, agent_id: str) -> None:
        """The pending commands of a removed agent end."""
        for command in list(self.stored.values()):
            if command.target.type == "agent" and command.target.id == agent_id and command.status == "pending":
                self.stored[command.document_id] = rules.failed(command, rules.AGENT_REMOVED)
                self.claimed.discard(command.document_id)
