"""JSON Schema validation of messages and answers, per daemon and command. fastjsonschema is imported on first use.

What is checked: a message that carries ``version`` against the envelope's schema; a message whose daemon and command
have a schema against that one; and nothing else, so ``{"command": "status"}`` goes through. A schema given by the
caller takes the place of all of these.

The schemas lie beside this module (``schemas/<daemon>.json``); a program adds its own, or replaces ours, with
``register_schemas``. A source of schemas is a mapping or the path of a JSON file: ``{"commands": {COMMAND: {"request":
SCHEMA, "reply": SCHEMA}}}``, where either of the two may be missing and the command
``*`` stands for those without schemas of their own. Drafts 4, 6, 7 and 2019-09, as fastjsonschema
knows them; ``$ref`` stays within the schema, nothing is fetched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final, NoReturn, TypeAlias

from wazuh_comms_trio.errors import AnswerInvalid, MessageInvalid
from wazuh_comms_trio.wire.envelope import carries_version

Check: TypeAlias = Callable[[Any], Any]
Schema: TypeAlias = "Mapping[str, Any] | bool"
StrPath: TypeAlias = "str | os.PathLike[str]"

#: Stands in a source for every command that has no schema of its own.
ANY_COMMAND: Final = "*"

_SIDES: Final = frozenset({"request", "reply"})

#: daemon -> command -> side -> schema: the program's own, before those in the package
_registered: dict[str, dict[str, Mapping[str, Schema]]] = {}

# Compiled schemas by their JSON text: a program has a handful, and one made anew for each call must not fill the
# memory.
_CACHE_SIZE: Final = 256


def register_schemas(daemon: str, source: Mapping[str, Any] | StrPath) -> None:
    """Check this daemon's messages and answers by the schemas in ``source``, a mapping or a JSON file's path.

    The form is ``{"commands": {COMMAND: {"request": SCHEMA, "reply": SCHEMA}}}``; either of the two may be missing, and
    the command ``*`` stands for those without schemas of their own. They replace the schemas of the same commands.
    ``ValueError`` for another form and for what is no JSON Schema, ``OSError`` for a file that can't be read; nothing
    is registered then.
    """
    commands = _load(source).get("commands")
    if not isinstance(commands, Mapping):
        raise ValueError(f"schemas for {daemon}: 'commands' is missing")  # noqa: TRY004 -- a wrong value inside
    for command, sides in commands.items():
        _check_sides(sides, f"schemas for {daemon}, command {command}")
        for schema in sides.values():
            _compiled(schema)
    _registered.setdefault(daemon, {}).update(commands)
    _check_for.cache_clear()


def unregister_schemas(daemon: str) -> None:
    """Forget what ``register_schemas`` added for this daemon."""
    _registered.pop(daemon, None)
    _check_for.cache_clear()


def validate_request(daemon: str | None, message: Any, *, schema: Mapping[str, Any] | StrPath | None = None) -> None:
    """Raise ``MessageInvalid`` (1012) when ``message`` doesn't fit; the text says where and why.

    ``schema`` is a JSON Schema for the message, or ``{"request": SCHEMA, "reply": SCHEMA}``, or the path of a file with
    either.
    """
    if schema is not None:
        _validate(_own_check(schema, "request"), message, "message", MessageInvalid, 1012, daemon, None)
        return
    if carries_version(message):
        _validate(_envelope_check("request"), message, "message", MessageInvalid, 1012, daemon, None)
    command = _command_of(message)
    _validate(_check_for(daemon, command, "request"), message, "message", MessageInvalid, 1012, daemon, command)


def validate_reply(
    daemon: str | None,
    command: str | None,
    reply: Any,
    *,
    schema: Mapping[str, Any] | StrPath | None = None,
    versioned: bool = False,
) -> None:
    """Raise ``AnswerInvalid`` (1014) when the whole answer, ``error`` included, doesn't fit.

    ``versioned``: it answers a message that carried ``version``. ``schema`` as in ``validate_request``; a bare JSON
    Schema there is for the message, so the answer goes unchecked.
    """
    if schema is not None:
        _validate(_own_check(schema, "reply"), reply, "answer", AnswerInvalid, 1014, daemon, command)
        return
    command = command if isinstance(command, str) else None
    if versioned:
        _validate(_envelope_check("reply"), reply, "answer", AnswerInvalid, 1014, daemon, command)
    _validate(_check_for(daemon, command, "reply"), reply, "answer", AnswerInvalid, 1014, daemon, command)


def _command_of(message: Any) -> str | None:
    """What tells messages apart: ``command``, or authd's ``function``. None when there is neither."""
    command = message.get("command", message.get("function")) if isinstance(message, Mapping) else None
    return command if isinstance(command, str) else None


def schema_for(daemon: str | None, command: str | None, side: str) -> Schema | None:
    """The schema that holds for ``side`` (``"request"`` or ``"reply"``) of a daemon's command, None when there is
    none."""
    if daemon is None or command is None:
        return None
    own, packaged = _registered.get(daemon, {}), _packaged(daemon)
    sides = own.get(command) or packaged.get(command) or own.get(ANY_COMMAND) or {}
    return sides.get(side)


@cache
def _packaged(daemon: str) -> Mapping[str, Mapping[str, Schema]]:
    """The package's schemas for a daemon, empty when it has none."""
    if not daemon.replace("-", "").isalnum():  # a registered name may be anything; a file's name may not
        return {}
    resource = files(__package__) / "schemas" / f"{daemon}.json"
    commands: Mapping[str, Mapping[str, Schema]] = (
        json.loads(resource.read_text()).get("commands", {}) if resource.is_file() else {}
    )
    return commands


@lru_cache(maxsize=_CACHE_SIZE)
def _check_for(daemon: str | None, command: str | None, side: str) -> Check | None:
    schema = schema_for(daemon, command, side)
    return None if schema is None else _compiled(schema)


@cache
def _envelope_check(side: str) -> Check:
    return _compiled(json.loads((files(__package__) / "schemas" / "envelope.json").read_text())[side])


def _own_check(source: Mapping[str, Any] | StrPath, side: str) -> Check | None:
    schema = _own(source).get(side)
    return None if schema is None else _compiled(schema)


def _own(source: Mapping[str, Any] | StrPath) -> Mapping[str, Schema]:
    """A caller's schema by side."""
    schema = _load(source)
    if schema and schema.keys() <= _SIDES:
        _check_sides(schema, "a schema")
        return schema
    return {"request": schema}


def _load(source: Mapping[str, Any] | StrPath) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    if isinstance(source, str | os.PathLike):
        with open(source, encoding="utf-8") as file:
            content = json.load(file)
        if isinstance(content, Mapping):
            return content
        raise ValueError(f"{os.fspath(source)}: no JSON object")
    raise TypeError(f"a schema is a mapping or a file's path, not {type(source).__name__}")


def _check_sides(sides: Any, what: str) -> None:
    if not isinstance(sides, Mapping) or not sides or not sides.keys() <= _SIDES:
        raise ValueError(f"{what}: it must have 'request', 'reply' or both, and nothing else")
    for side, schema in sides.items():
        if not isinstance(schema, Mapping | bool):
            raise ValueError(f"{what}, {side}: a JSON Schema is an object, not {type(schema).__name__}")  # noqa: TRY004 -- a wrong value inside


def _validate(
    check: Check | None,
    value: Any,
    what: str,
    kind: type[MessageInvalid] | type[AnswerInvalid],
    code: int,
    daemon: str | None,
    command: Any,
) -> None:
    if check is None:
        return
    from fastjsonschema import JsonSchemaValueException

    try:
        check(value)
    except JsonSchemaValueException as error:
        whose = " ".join(str(part) for part in (daemon, command) if part is not None)
        reason = error.message.removeprefix("data.").removeprefix("data ")
        raise kind(code, f"the {what} doesn't fit its schema{f' ({whose})' if whose else ''}: {reason}") from error


def _compiled(schema: Schema) -> Check:
    return _compiled_text(json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=_CACHE_SIZE)
def _compiled_text(text: str) -> Check:
    from fastjsonschema import compile

    try:
        # Defaults would be written into the message, which is the caller's.
        check: Check = compile(json.loads(text), handlers=_NO_FETCHING, use_default=False)
    except Exception as error:  # a wrong schema makes it raise anything: AttributeError, re.error, ...
        raise ValueError(f"not a JSON Schema: {error}") from error
    return check


def _refuse_to_fetch(address: str) -> NoReturn:
    raise ValueError(f"a schema refers to {address}: nothing is fetched, put it into the schema's own definitions")


_NO_FETCHING: Final = dict.fromkeys(("http", "https", "ftp", "file"), _refuse_to_fetch)
