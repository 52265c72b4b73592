"""Commands, and the store that all nodes share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol

from attrs import frozen

from wazuh_comms_trio.backends.interfaces.events import ItemResult

__all__ = ["Action", "Command", "CommandReport", "CommandResult", "CommandStatus", "CommandStore", "Target"]


CommandStatus = Literal["pending", "sent", "success", "failed"]


@frozen
class Target:
    type: Literal["agent", "group", "server"]
    id: str


@frozen
class Action:
    name: str
    version: str | None = None
    args: Mapping[str, Any] | None = None


@frozen
class CommandResult:
    """``code`` as agents report it: 0 success, 1 failure, 2 in progress, 3 timeout, 4 unknown."""

    code: int | None = None
    message: str | None = None
    data: Any = None


@frozen
class Command:
    """One command. ``timeout`` in seconds counts from ``created_at`` while pending, from ``sent_at`` once sent."""

    document_id: str
    target: Target
    action: Action
    timeout: float = 100
    request_id: str | None = None
    order_id: str | None = None
    source: str | None = None
    user: str | None = None
    status: CommandStatus = "pending"
    result: CommandResult | None = None
    created_at: float = 0.0
    sent_at: float | None = None


@frozen
class CommandReport:
    """An agent's word on a command: an update of ``command.result``. ``agent_id`` is the reporting agent's.
    ``is_received``: the agent has the command; else the server says that a pending one fails, undeliverable."""

    agent_id: str
    document_id: str
    result: CommandResult
    is_received: bool = True


class CommandStore(Protocol):
    """Commands, and which node has them now. A *claim* is this node's exclusive right to offer a command."""

    #: True when commands posted to the local command server are this store's to keep (embedded); False when they stay
    #: the poster's.
    keeps_posted: bool

    async def add(self, commands: Sequence[Command]) -> Sequence[Command]:
        """Stores commands (idempotent by ``document_id``: what is there stays) and returns them as stored, in order. A
        group's command is expanded: one child per member (``<parent>_<uuid>``, same order and request id), the parent
        marked ``sent``.
        """

    async def wait_news(self) -> Collection[str]:
        """Waits until some agents may have pending commands that no node has claimed; returns their ids. One caller."""

    async def claim(self, agent_ids: Collection[str]) -> Sequence[Command]:
        """Claims what is pending for these agents, oldest first, at most 100 an agent. No claim is given twice until
        released. (Embedded: large ones are fewer, and whose are left are news again.)
        """

    async def mark_sent(self, document_ids: Collection[str]) -> None:
        """The delivery was confirmed, of these in this order. (Embedded: a delivered ``set-group`` is applied to the
        registry here.)"""

    async def release(self, document_ids: Collection[str]) -> None:
        """The delivery of these commands wasn't confirmed: they are pending again, unclaimed."""

    async def report(self, reports: Sequence[CommandReport]) -> Sequence[ItemResult]:
        """Results by position. ``refused`` (status 400) unless the command was sent to that very agent; of one that
        isn't there 404, and nothing of it is kept. Code 0 makes it
        ``success``, 2 leaves it ``sent``, 1, 3 and 4 make it ``failed``. Repeating an equal report is a success.
        """
        ...

    async def expire(self) -> None:
        """Ends overdue commands: those that are pending past their timeout become ``failed`` with a reason. Sent and
        not answered within it: ``failed``, ``no answer``. A late report still counts.
        """

    async def get(self, document_id: str) -> Command | None: ...

    async def list(
        self,
        *,
        status: CommandStatus | None = None,
        agent_id: str | None = None,
        limit: int = 1000,
        children: bool = True,
    ) -> Sequence[Command]:
        """Commands, the newest first. ``children`` False: without those that a group's command became."""

    def pages(
        self, *, status: CommandStatus | None = None, agent_id: str | None = None, children: bool = True
    ) -> AsyncGenerator[Sequence[Command], None]:
        """As ``list`` without a limit, some hundred at a time; of what changes meanwhile either state."""

    async def children(self, parents: Collection[str]) -> Sequence[Command]:
        """The children of these groups' commands (document ids), in no order. An id that is no group's has none."""

    async def cancel(self, document_id: str) -> Command | None:
        """Cancels a pending command, which becomes ``failed`` (``cancelled``), and of a group's command those of its
        children that are pending; returns it as it is then, None when there is none."""
