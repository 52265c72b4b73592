"""Commands as rows of their table: what a transaction does to one of them."""

from __future__ import annotations

import json
from typing import Any, Final

import apsw
from attrs import evolve

from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.embedded.agents import members, set_groups
from wazuh_comms_trio.backends.embedded.row_checksums import row_checksum
from wazuh_comms_trio.backends.interfaces import Action, Command, CommandReport, CommandResult, ItemResult, Target

COLUMNS: Final = "id, target_type, target_id, status, created_at, sent_at, timeout, body, result"
#: A command that may be claimed, and then delivered.
FREE: Final = "status = 'pending' AND owner IS NULL"
#: An unclaimed command whose time is over.
OVERDUE: Final = "due_at IS NOT NULL AND owner IS NULL AND due_at < :now"


def next_news(connection: apsw.Connection) -> int:
    value = connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'news' RETURNING value").get
    assert isinstance(value, int)
    return value


def insert(connection: apsw.Connection, command: Command, now: float) -> Command:
    if not rules.is_ours(command):
        return command
    present = select(connection, command.document_id)
    if present is not None:
        return present
    if command.target.type == "group" and command.status == "pending":
        command, children = rules.expand(command, members(connection, command.target.id), now)
        for child in children:
            insert(connection, child, now)
    news = next_news(connection) if command.status == "pending" else 0
    body = _encode_body(command)
    target = command.target
    checksum = row_checksum(
        command.document_id, target.type, target.id, float(command.created_at), float(command.timeout), body
    )
    connection.execute(
        f"INSERT INTO commands ({COLUMNS}, news, checksum) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (
            command.document_id,
            command.target.type,
            command.target.id,
            command.status,
            command.created_at,
            command.sent_at,
            command.timeout,
            body,
            None if command.result is None else encode_result(command.result),
            news,
            checksum,
        ),
    )
    return command


def apply_report(connection: apsw.Connection, report: CommandReport, now: float) -> ItemResult:
    command = select(connection, report.document_id)
    offered = connection.execute("SELECT offered FROM commands WHERE id = ?", (report.document_id,)).get == 1
    result, after = rules.apply_report(command, offered, report, now)
    if after is not None and after.result is not None:
        connection.execute(
            "UPDATE commands SET status = ?, sent_at = ?, result = ? WHERE id = ?",
            (after.status, after.sent_at, encode_result(after.result), report.document_id),
        )
        if command is not None and command.status == "pending":
            apply_groups(connection, after)
    return result


def apply_groups(connection: apsw.Connection, command: Command) -> None:
    groups = rules.new_groups(command)
    if groups is not None:
        set_groups(connection, command.target.id, groups)


def select(connection: apsw.Connection, document_id: str) -> Command | None:
    query = f"SELECT {COLUMNS} FROM commands WHERE id = ?"
    row = connection.execute(query, (document_id,)).fetchone()
    return None if row is None else decode(row)


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


def decode(row: Any) -> Command:
    document_id, target_type, target_id, status, created_at, sent_at, timeout, body_text, result_text = row
    body = json.loads(body_text)
    command = Command(
        document_id=document_id,
        target=Target(target_type, target_id),
        action=Action(body["name"], body.get("version"), body.get("args")),
        timeout=timeout,
        request_id=body.get("request_id"),
        order_id=body.get("order_id"),
        source=body.get("source"),
        user=body.get("user"),
        status=status,
        created_at=created_at,
        sent_at=sent_at,
    )
    return command if result_text is None else evolve(command, result=CommandResult(**json.loads(result_text)))
