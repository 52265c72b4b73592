"""Commands as JSON: what the local command server is posted, and what agents and posters are answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from attrs import frozen

from wazuh_comms_trio.backends.interfaces import Action, Command, CommandResult, CommandStatus, Target
from wazuh_comms_trio.errors import MalformedRequest
from wazuh_comms_trio.services.stateful.packet_reader import DOCUMENT_ID_LIMIT
from wazuh_comms_trio.services.strict_json import decode_body, is_too_deep

__all__ = [
    "LARGEST_REPLY",
    "PostedCommands",
    "decode_commands",
    "encode_command",
    "encode_commands",
    "fit_into_reply",
    "join_commands",
    "size_of_reply",
    "why_too_large",
]

#: Bytes of the commands in one reply: agents refuse what is above 8 MB (PROTOCOL.md, section 1), and with it all of it.
LARGEST_REPLY: Final = 8_000_000 - 64 * 1024

#: So many bytes of commands are kept as they were encoded to learn their size; larger ones are encoded again.
_KEPT: Final = 32 * 1024

#: How many times longer than in a body a command may be in a reply: of ``1e15`` comes ``1000000000000000.0``.
_GROWTH: Final = 4

#: Of a command that names none, seconds.
DEFAULT_TIMEOUT: Final = 100

_STATUSES: Final = frozenset(get_args(CommandStatus))
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Target(msgspec.Struct):
    type: Literal["agent", "group", "server"]
    id: _Text


class _Action(msgspec.Struct):
    name: _Text
    version: str | None = None
    args: dict[str, Any] | None = None


class _Result(msgspec.Struct):
    code: int | None = None
    message: str | None = None
    data: Any = None


class _Command(msgspec.Struct):
    document_id: _Text
    target: _Target
    action: _Action
    timeout: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = DEFAULT_TIMEOUT
    request_id: str | None = None
    order_id: str | None = None
    source: str | None = None
    user: str | None = None
    status: str | None = None
    result: _Result | None = None


class PostedCommands(msgspec.Struct):
    commands: list[_Command]


_decoder: Final = msgspec.json.Decoder(PostedCommands)


def decode_commands(body: bytes | bytearray) -> list[Command]:
    """Reads ``{"commands":[COMMAND...]}`` as the local command server is posted; unknown fields are ignored. Raises
    ``MalformedRequest``."""
    posted = decode_body(body, _decoder).commands
    commands = [_command(command, f"commands[{position}]") for position, command in enumerate(posted)]
    if len(body) > LARGEST_REPLY // _GROWTH:
        for position, command in enumerate(commands):
            if (size := size_in_reply(command)) > LARGEST_REPLY:
                raise MalformedRequest(f"commands[{position}] is {why_too_large(size)}")
    return commands


def _command(command: _Command, where: str) -> Command:
    status = "pending" if command.status is None else command.status.lower()
    if status == "failure":  # as the index template calls it
        status = "failed"
    if status not in _STATUSES:
        raise MalformedRequest(f"{where}.status: Expected one of {', '.join(sorted(_STATUSES))}")
    if len(command.document_id.encode()) > DOCUMENT_ID_LIMIT or "\0" in command.document_id:
        raise MalformedRequest(f"{where}.document_id: Expected at most {DOCUMENT_ID_LIMIT} bytes without a NUL")
    if is_too_deep(command.action.args) or (command.result is not None and is_too_deep(command.result.data)):
        raise MalformedRequest(f"{where} is nested too deeply")
    target_id = command.target.id.lower() if command.target.type == "agent" else command.target.id
    action = command.action
    result = command.result
    return Command(
        document_id=command.document_id,
        target=Target(command.target.type, target_id),
        action=Action(action.name, action.version, action.args),
        timeout=command.timeout,
        request_id=command.request_id,
        order_id=command.order_id,
        source=command.source,
        user=command.user,
        status=status,  # type: ignore[arg-type]  # checked above
        result=None if result is None else CommandResult(result.code, result.message, result.data),
    )


def _without_nulls(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def encode_command(command: Command) -> dict[str, Any]:
    """A command as JSON data, null fields left out."""
    action, result = command.action, command.result
    args = None if action.args is None else dict(action.args)
    return _without_nulls(
        {
            "document_id": command.document_id,
            "request_id": command.request_id,
            "order_id": command.order_id,
            "source": command.source,
            "user": command.user,
            "target": {"type": command.target.type, "id": command.target.id},
            "action": _without_nulls({"name": action.name, "version": action.version, "args": args}),
            "timeout": int(command.timeout),
            "status": command.status,
            "result": None
            if result is None
            else _without_nulls({"code": result.code, "message": result.message, "data": result.data}),
        }
    )


def encode_commands(commands: Sequence[Command]) -> bytes:
    """``{"commands":[...]}`` as UTF-8 JSON."""
    return msgspec.json.encode({"commands": [encode_command(command) for command in commands]})


def join_commands(texts: Sequence[bytes]) -> bytes:
    """The same of commands that are encoded already."""
    return b'{"commands":[%b]}' % b",".join(texts)


def _text_of(command: Command) -> bytes:
    return msgspec.json.encode(encode_command(command))


def _size_of(text: bytes) -> int:
    return len(text) + 1  # with its comma


def size_in_reply(command: Command) -> int:
    return _size_of(_text_of(command))


def size_of_reply(commands: Sequence[Command]) -> int:
    """What ``encode_commands`` has at most, bytes; no more than one command is encoded for it at a time."""
    return len(encode_commands(())) + sum(map(size_in_reply, commands))


def why_too_large(size: int) -> str:
    """Why no agent takes a command of this size, however alone."""
    return f"too large for an agent: {size} bytes, and {LARGEST_REPLY} are the most"


@frozen
class Fitting:
    """``now``: what fits into a reply; ``later``: what comes after it; ``never``: what fits into none, with its size.
    ``room``: bytes that are left. ``texts``: of ``now``, encoded; None where they are many bytes."""

    now: Sequence[Command]
    later: Sequence[Command]
    never: Sequence[tuple[Command, int]]
    room: int
    texts: Sequence[bytes] | None


def fit_into_reply(commands: Sequence[Command], room: int | None = None) -> Fitting:
    """Divides commands, in their order, into those that fit into a reply (of which ``room`` bytes are left; all of it),
    and the others."""
    room = LARGEST_REPLY if room is None else room
    texts: list[bytes] | None = []
    kept = 0
    now: list[Command] = []
    later: list[Command] = []
    never: list[tuple[Command, int]] = []
    for command in commands:
        text = _text_of(command)
        size = _size_of(text)
        if size > LARGEST_REPLY:
            never.append((command, size))
        elif later or size > room:
            later.append(command)
        else:
            now.append(command)
            room -= size
            kept += size
            if texts is not None:
                texts.append(text)
            if kept > _KEPT:
                texts = None
    return Fitting(now, later, never, room, texts)
