"""Commands and backups as the tool shows them: ``*_document`` for ``--json``, ``*_text`` for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wazuh_comms_trio.cli.output import pairs, timestamp

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.interfaces import Command
    from wazuh_comms_trio.backup.create import Contents
    from wazuh_comms_trio.errors import DocumentUnreadable


def command_document(command: Command) -> dict[str, Any]:
    """A command as ``--json`` prints it."""
    result = command.result
    return {
        "document_id": command.document_id,
        "status": command.status,
        "target": {"type": command.target.type, "id": command.target.id},
        "action": {
            "name": command.action.name,
            "version": command.action.version,
            "args": None if command.action.args is None else dict(command.action.args),
        },
        "timeout": int(command.timeout),
        "result": None if result is None else {"code": result.code, "message": result.message, "data": result.data},
        "request_id": command.request_id,
        "order_id": command.order_id,
        "source": command.source,
        "user": command.user,
        "created_at": timestamp(command.created_at),
        "sent_at": timestamp(command.sent_at),
    }


def command_text(command: Command, label: str, children: str | None = None) -> str:
    """One command for people; ``label``: of whom it is for; ``children``: of a group's, how its agents' parts are."""
    action = command.action
    args = json.dumps(dict(action.args), ensure_ascii=False) if action.args else None
    result = command.result
    return pairs(
        {
            "document_id": command.document_id,
            "status": command.status,
            "target": target_text(command, label),
            "action": " ".join(filter(None, (action.name, action.version))),
            "args": args,
            "timeout": f"{command.timeout:g} s",
            "result": outcome_text(command) if result is not None else None,
            "data": None if result is None or result.data is None else json.dumps(result.data, ensure_ascii=False),
            "user": command.user,
            "created_at": timestamp(command.created_at),
            "sent_at": timestamp(command.sent_at),
            "children": children,
        }
    )


def target_text(command: Command, label: str) -> str:
    """Whom a command is for: ``group web``, ``agent web-1 (0194857f-...)``, or an agent's uuid alone."""
    target = command.target
    return f"{target.type} {label} ({target.id})" if label != target.id else f"{target.type} {label}"


def unreadable_document(name: str, value: str, error: DocumentUnreadable) -> tuple[dict[str, Any], str]:
    """One that can't be read, which is known as ``value``, in both forms."""
    document = {name: value, "unreadable": error.why, "text": error.text}
    return document, pairs({name: value, "can't be read": error.why, "text": error.text})


def outcome_text(command: Command) -> str:
    """``success``, ``failed: no answer`` ..."""
    result = command.result
    words = [] if result is None else [result.message or "", f"(code {result.code})" if result.code is not None else ""]
    reason = " ".join(filter(None, words))
    return f"{command.status}: {reason}" if reason else command.status


def backup_document(file: Path, contents: Contents) -> dict[str, Any]:
    """A backup's file and what it holds."""
    return {
        "file": str(file),
        "created": contents.created,
        "program": contents.program,
        "bytes": contents.total_bytes,
        "files": [{"name": member.name, "bytes": member.bytes} for member in contents.members],
        "damaged": list(contents.damaged),
    }
