"""Commands as rows of their table: what a transaction does to one of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import apsw
import msgspec
from attrs import frozen

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.embedded.agents import next_group_turn, set_groups
from wazuh_comms_trio.backends.embedded.database.pauses import with_pauses
from wazuh_comms_trio.backends.embedded.row_checksums import row_checksum
from wazuh_comms_trio.backends.embedded.row_reading import read_row, read_rows
from wazuh_comms_trio.backends.interfaces import (
    Action,
    Command,
    CommandReport,
    CommandResult,
    CommandStatus,
    ItemResult,
    Target,
)
from wazuh_comms_trio.errors import DocumentUnreadable

COLUMNS: Final = "id, target_type, target_id, status, created_at, sent_at, timeout, body, result"
_ESSENTIAL: Final = "id, target_type, target_id, status, created_at, sent_at, timeout"
#: A command that may be claimed, and then delivered.
FREE: Final = "status = 'pending' AND owner IS NULL"
#: What the commands of one claim take in memory, about: as much as one reply.
CLAIM_BYTES: Final = 8_000_000
#: An empty object or list in one, and whatever stands behind a comma: three bytes of text become 72.
_VALUE_BYTES: Final = 64
#: An unclaimed command whose time is over.
OVERDUE: Final = "due_at IS NOT NULL AND owner IS NULL AND due_at < :now"

#: A child of one group's command: see ``child_of``. Ids sort by their bytes, so a range of them is enough.
CHILD_OF: Final = (
    "target_type = 'agent' AND id > ? AND id < ? AND id = ? || target_id AND EXISTS"
    " (SELECT 1 FROM commands AS parent WHERE parent.id = ? AND parent.target_type = 'group')"
)
#: A child of any group's command that is there.
IS_CHILD: Final = (
    "(target_type = 'agent' AND EXISTS (SELECT 1 FROM commands AS parent WHERE parent.target_type = 'group'"
    " AND parent.id || '_' || commands.target_id = commands.id"
    " AND parent.id = substr(commands.id, 1, length(commands.id) - length(commands.target_id) - 1)))"
)


def child_of(parent: str) -> tuple[str, str, str, str]:
    """The values for the condition ``CHILD_OF``."""
    prefix = rules.child_id(parent, "")
    return prefix, f"{parent}`", prefix, parent  # ` follows _


def next_news(connection: apsw.Connection) -> int:
    value = connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'news' RETURNING value").get
    assert isinstance(value, int)
    return value


def insert(connection: apsw.Connection, command: Command, owner: str) -> tuple[Command, bool]:
    """Stores a command that isn't there yet; returns it as it is stored, and whether it was stored now. ``owner``: who
    expands it, if it is a group's."""
    if not rules.is_ours(command):
        return command, False
    present = select_for_change(connection, command.document_id)
    if present is not None:
        return present, False
    insert_new(connection, [command], owner if rules.is_to_expand(command) else None)
    return command, True


def insert_new(connection: apsw.Connection, commands: Sequence[Command], owner: str | None = None) -> None:
    """Stores the commands that aren't there yet; those that are stay as they are."""
    number = next_news(connection) if any(command.status == "pending" for command in commands) else 0
    connection.executemany(
        f"INSERT INTO commands ({COLUMNS}, news, checksum, owner) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
        " ON CONFLICT DO NOTHING",
        # One after the other: of a large command for a group each child's row is as large.
        ((*_row(command, number if command.status == "pending" else 0), owner) for command in commands),
    )


def _row(command: Command, news: int) -> tuple[str | float | None, ...]:
    body = _encode_body(command)
    target = command.target
    checksum = row_checksum(
        command.document_id, target.type, target.id, float(command.created_at), float(command.timeout), body
    )
    return (
        command.document_id,
        target.type,
        target.id,
        command.status,
        command.created_at,
        command.sent_at,
        command.timeout,
        body,
        None if command.result is None else encode_result(command.result),
        news,
        checksum,
    )


def mark_sent(connection: apsw.Connection, document_id: str, now: float) -> None:
    """Marks a command as sent, which ends its claim. Of most commands nothing is read: only a ``set-group`` does
    something of its own here."""
    query = (
        "UPDATE commands SET status = 'sent', sent_at = ?, owner = NULL WHERE id = ? AND status = 'pending'"
        " RETURNING instr(body, ?)"
    )
    place = connection.execute(query, (now, document_id, f'"{rules.SET_GROUP}"')).get
    if place is None:
        connection.execute("UPDATE commands SET owner = NULL WHERE id = ?", (document_id,))
    elif place and (command := select_for_change(connection, document_id)) is not None:
        apply_groups(connection, command)


def apply_report(connection: apsw.Connection, report: CommandReport, now: float) -> ItemResult:
    try:
        command = select_for_change(connection, report.document_id)
    except DocumentUnreadable:
        return rules.not_yours(report.document_id)
    offered = connection.execute("SELECT offered FROM commands WHERE id = ?", (report.document_id,)).get == 1
    result, after = rules.apply_report(command, offered, report, now)
    if after is not None and after.result is not None:
        connection.execute(
            # An end that it had before, for want of an answer, is none any more: its age begins anew.
            "UPDATE commands SET status = ?, sent_at = ?, result = ?, ended_age = NULL WHERE id = ?",
            (after.status, after.sent_at, encode_result(after.result), report.document_id),
        )
        if rules.shows_delivery(command, report):
            apply_groups(connection, after)
    return result


def apply_groups(connection: apsw.Connection, command: Command) -> None:
    groups = rules.new_groups(command)
    if groups is not None:
        set_groups(connection, command.target.id, groups, group_turn(connection, command.document_id))


def give_group_turn(connection: apsw.Connection, command: Command) -> None:
    """A command that changes its agent's groups is given to that: it is the agent's last one from now on."""
    if rules.new_groups(command) is not None:
        turn = next_group_turn(connection, command.target.id)
        connection.execute("UPDATE commands SET group_turn = ? WHERE id = ?", (turn, command.document_id))


def group_turn(connection: apsw.Connection, document_id: str) -> object:
    return connection.execute("SELECT group_turn FROM commands WHERE id = ?", (document_id,)).get


def select(connection: apsw.Connection, document_id: str) -> Command | None:
    """Raises ``DocumentUnreadable``."""
    return read_row(connection, "commands", COLUMNS, document_id, decode)


def select_for_change(connection: apsw.Connection, document_id: str) -> Command | None:
    """As ``select``; of one that can't be read as a whole, what a step of its life needs. Raises
    ``DocumentUnreadable`` where that can't be read either."""
    try:
        return select(connection, document_id)
    except DocumentUnreadable:
        return read_row(connection, "commands", _ESSENTIAL, document_id, _decode_essential)


@frozen
class Taken:
    """``left``: agents some of whose commands were too much for one claim."""

    commands: list[Command]
    unreadable: list[DocumentUnreadable]
    left: set[str]


def take(connection: apsw.Connection, free: Sequence[tuple[int, str]], owner: str) -> Taken:
    """Claims commands that are free, in this order, each a number and its agent, until they are ``CLAIM_BYTES`` in
    memory; gives each that changes its agent's groups its turn. One that can't be read ends as failed: it holds up no
    other. What one says that says the same as the one before, as the children of a group's command do, is in memory
    once."""
    commands: list[Command] = []
    decoder = _SharingDecoder()
    unreadable: list[DocumentUnreadable] = []
    for position, (number, _) in enumerate(with_pauses(free)):
        if decoder.decoded_size >= CLAIM_BYTES:
            return Taken(commands, unreadable, {agent_id for _, agent_id in free[position:]})
        for found in read_rows(connection, "commands", COLUMNS, "WHERE no = ?", (number,), decoder.decode):
            if not isinstance(found, DocumentUnreadable):
                commands.append(found)
                connection.execute("UPDATE commands SET owner = ?, offered = 1 WHERE no = ?", (owner, number))
                give_group_turn(connection, found)
                continue
            unreadable.append(found)
            connection.execute(
                "UPDATE commands SET status = 'failed', owner = NULL, offered = 1, result = ? WHERE no = ?",
                (encode_result(CommandResult(message=f"can't be read: {found.why}")), number),
            )
    return Taken(commands, unreadable, set())


def _encode_body(command: Command) -> str:
    action = command.action
    body = {
        "name": action.name,
        "version": action.version,
        "args": action.args,
        "request_id": command.request_id,
        "order_id": command.order_id,
        "source": command.source,
        "user": command.user,
    }
    return json.dumps({name: value for name, value in body.items() if value is not None}, separators=(",", ":"))


def encode_result(result: CommandResult) -> str:
    body = {"code": result.code, "message": result.message, "data": result.data}
    return json.dumps({name: value for name, value in body.items() if value is not None}, separators=(",", ":"))


class _Body(msgspec.Struct):
    name: str
    version: str | None = None
    args: dict[str, Any] | None = None
    request_id: str | None = None
    order_id: str | None = None
    source: str | None = None
    user: str | None = None


class _Result(msgspec.Struct):
    code: int | None = None
    message: str | None = None
    data: Any = None


class _EssentialRow(msgspec.Struct, array_like=True):
    document_id: str
    target_type: Literal["agent", "group", "server"]
    target_id: str
    status: CommandStatus
    created_at: float
    sent_at: float | None
    timeout: float

    @property
    def target(self) -> Target:
        return Target(self.target_type, self.target_id)


class _Row(_EssentialRow, array_like=True):
    body: str
    result: str | None


def _decode_body(text: str) -> _Body:
    return msgspec.convert(json.loads(text), _Body)


def decode(row: Any) -> Command:
    """Raises ``ValueError``, ``RecursionError``."""
    return _decode(row, _decode_body)


def _decode(row: Any, decode_body: Callable[[str], _Body]) -> Command:
    columns = msgspec.convert(row, _Row)
    body = decode_body(columns.body)
    result = None if columns.result is None else msgspec.convert(json.loads(columns.result), _Result)
    return Command(
        document_id=columns.document_id,
        target=columns.target,
        action=Action(body.name, body.version, body.args),
        timeout=columns.timeout,
        request_id=body.request_id,
        order_id=body.order_id,
        source=body.source,
        user=body.user,
        status=columns.status,
        result=None if result is None else CommandResult(result.code, result.message, result.data),
        created_at=columns.created_at,
        sent_at=columns.sent_at,
    )


class _SharingDecoder:
    """Decodes rows; a body that is the same as the row's before is the same value, too."""

    def __init__(self) -> None:
        self._text: str | None = None
        self._body = _Body("")
        #: What was decoded takes about so many bytes, each body once.
        self.decoded_size = 0

    def decode(self, row: Any) -> Command:
        """Raises ``ValueError``, ``RecursionError``."""
        return _decode(row, self._decode_body)

    def _decode_body(self, text: str) -> _Body:
        if text != self._text:
            self._body = _decode_body(text)
            self._text = text
            self.decoded_size += len(text) + _VALUE_BYTES * sum(map(text.count, "[{,"))
        return self._body


def _decode_essential(row: Any) -> Command:
    columns = msgspec.convert(row, _EssentialRow)
    return Command(
        columns.document_id,
        columns.target,
        Action(""),
        columns.timeout,
        status=columns.status,
        created_at=columns.created_at,
        sent_at=columns.sent_at,
    )
