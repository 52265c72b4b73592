"""The life of a command, as pure functions: the memory and the embedded store share them.

``pending`` -> (claimed, offered) -> ``sent`` -> ``success`` or ``failed``. A claim is no status: it is the right of one
node to offer a pending command.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from attrs import evolve

from wazuh_comms_trio.backends.interfaces import Command, CommandReport, CommandResult, ItemResult, Outcome, Target

#: The most commands that one claim gives an agent.
CLAIM_LIMIT: Final = 100

#: The action that, once delivered, changes its agent's groups.
SET_GROUP: Final = "set-group"

NOT_DELIVERED: Final = "not delivered in time"
NO_ANSWER: Final = "no answer"
CANCELLED: Final = "cancelled"
AGENT_REMOVED: Final = "agent removed"

#: What an agent's result codes make of a command; 2 is "in progress". An unknown code is no success.
_SUCCESS: Final = 0
_IN_PROGRESS: Final = 2


def normalized(command: Command, now: float) -> Command:
    """A command as it is stored: its agent's id in lower case, its time beginning when the store takes it."""
    target = command.target
    if target.type == "agent" and not target.id.islower():
        target = Target("agent", target.id.lower())
    return evolve(command, target=target, created_at=command.created_at or now)


def is_ours(command: Command) -> bool:
    """Commands for servers are another program's: they are neither stored nor offered."""
    return command.target.type != "server"


def expand(parent: Command, members: Iterable[str], now: float) -> tuple[Command, list[Command]]:
    """A group's command as its parent, which counts as sent, and one child for each member. Children have ids that a
    second expansion would make again."""
    children = [
        evolve(
            parent,
            document_id=child_id(parent.document_id, agent_id),
            target=Target("agent", agent_id),
            status="pending",
            result=None,
            sent_at=None,
        )
        for agent_id in members
    ]
    return evolve(parent, status="sent", sent_at=now), children


def is_to_expand(command: Command) -> bool:
    """Whether a command is a group's that its store still has to expand."""
    return command.target.type == "group" and command.status == "pending"


def child_id(parent: str, agent_id: str) -> str:
    return f"{parent}_{agent_id}"


def parent_id(command: Command) -> str | None:
    """The id of the group's command that this one would be a child of; None when its own id rules that out."""
    if command.target.type != "agent":
        return None
    parent, _, agent_id = command.document_id.rpartition("_")
    return parent if parent and agent_id == command.target.id else None


def failed(command: Command, reason: str) -> Command:
    return evolve(command, status="failed", result=CommandResult(message=reason))


def is_overdue(command: Command, now: float) -> bool:
    """Whether its time is over: as pending since it was made, as sent since then. A group's command waits for no answer
    of its own."""
    if command.status == "pending":
        return now > command.created_at + command.timeout
    if command.status == "sent" and command.target.type == "agent" and command.sent_at is not None:
        return now > command.sent_at + command.timeout
    return False


def overdue_reason(command: Command) -> str:
    return NOT_DELIVERED if command.status == "pending" else NO_ANSWER


def new_groups(command: Command) -> Sequence[str] | None:
    """What a delivered ``set-group`` makes the agent's groups; None when it is something else or makes no sense."""
    if command.action.name != SET_GROUP or command.action.args is None:
        return None
    groups = command.action.args.get("groups")
    if isinstance(groups, str):
        return (groups,)
    if isinstance(groups, list | tuple) and all(isinstance(group, str) for group in groups):
        return tuple(groups)
    return None


def shows_delivery(before: Command | None, report: CommandReport) -> bool:
    """Whether a report that was taken is the first sign that the agent has the command, also where its delivery had
    been given up: it does then what a confirmed delivery does."""
    if before is None or before.sent_at is not None or not report.is_received:
        return False
    reason = None if before.result is None else before.result.message
    return before.status == "pending" or reason in (NOT_DELIVERED, CANCELLED)


def not_yours(document_id: str) -> ItemResult:
    return ItemResult(400, f"[{document_id}]: no command of this id was sent to this agent", Outcome.REFUSED)


def not_there(document_id: str) -> ItemResult:
    return ItemResult(404, f"[{document_id}]: no such command")


def apply_report(
    command: Command | None, offered: bool, report: CommandReport, now: float
) -> tuple[ItemResult, Command | None]:
    """What an agent's report makes of ``command``. Returns the result and the command as it is afterwards, None when
    nothing changes.

    ``offered``: it was written to the agent at least once. An agent may report before its delivery is confirmed, or
    after a delivery that looked broken from here: it has the command, so that counts as sent.

    The first final report stands: a command that is delivered twice after a crash is reported by the agent first as it
    ended, then as failed, since it is there already. What the server said meanwhile (``no answer``) is no report.
    """
    yours = command is not None and command.target.type == "agent" and command.target.id == report.agent_id.lower()
    if command is None:
        return not_there(report.document_id), None
    if not yours or not (offered or command.sent_at is not None):
        return not_yours(report.document_id), None
    if not report.is_received:
        is_under_way = command.status == "pending"
        return ItemResult(200, "noop"), failed(command, report.result.message or "") if is_under_way else None
    code = report.result.code
    if _has_ended_as_reported(command):
        return ItemResult(200, "noop"), None
    ended = "success" if code == _SUCCESS else "failed"
    status = "sent" if code is None or code == _IN_PROGRESS else ended
    after = evolve(
        command,
        status=status,  # type: ignore[arg-type]  # one of CommandStatus by construction
        result=report.result,
        sent_at=command.sent_at if command.sent_at is not None else now,
    )
    if after == command:
        return ItemResult(200, "noop"), None
    return ItemResult(200, "updated"), after


def _has_ended_as_reported(command: Command) -> bool:
    """Nothing but a report makes it a success; that it failed is also said of what nobody reported."""
    code = None if command.result is None else command.result.code
    return command.status == "success" or (command.status == "failed" and code not in (None, _IN_PROGRESS))
