"""One JSON request and its answer, checked both ways and decoded: shared by the blocking and the trio sockets."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from wazuh_comms_trio.errors import AnswerInvalid
from wazuh_comms_trio.transport.guards import guard_of
from wazuh_comms_trio.wire.envelope import (
    TextErrors,
    carries_version,
    decode_json,
    encode_json,
    encode_text,
    reply_data,
)

#: A JSON Schema for the message, ``{"request": SCHEMA, "reply": SCHEMA}``, or the path of a file with either.
SchemaSource: TypeAlias = "Mapping[str, Any] | str | os.PathLike[str]"


class Conversation:
    """``payload`` is to be sent; what comes back goes into :meth:`result`.

    The message is validated at once, the answer in :meth:`result`, by :mod:`.schema` (imported on first use): per
    daemon and command, or by ``schema`` when given. ``daemon`` is the registry's name; when None, the name of the
    daemon that lives at ``path``, if any does. ``text_as_is``: text is no JSON string, but what is to be sent.
    """

    def __init__(
        self,
        msg: Any,
        *,
        daemon: str | None = None,
        path: str | None = None,
        schema: SchemaSource | None = None,
        text_as_is: bool = False,
    ) -> None:
        if daemon is None and path is not None:
            from wazuh_comms_trio.transport.registry import daemon_at

            daemon = daemon_at(path)
        self.daemon: str | None = daemon
        self.schema: SchemaSource | None = schema
        self.payload: bytes
        if text_as_is and isinstance(msg, str | bytes):
            self.payload = encode_text(msg) if isinstance(msg, str) else msg
            msg = _looked_into(msg)
        else:
            self.payload = encode_json(msg)
        self.command: Any = msg.get("command", msg.get("function")) if isinstance(msg, Mapping) else None
        self.versioned: bool = carries_version(msg)
        self.checked: bool = schema is not None or daemon is not None or self.versioned
        if self.checked:
            from wazuh_comms_trio.transport.schema import validate_request

            validate_request(daemon, msg, schema=schema)

        if (guard := guard_of(daemon)) is not None:
            guard(self.payload)

    def check(self, reply: Any) -> None:
        """Validate the whole answer, ``error`` included. :class:`AnswerInvalid` (1014) when it doesn't fit."""
        if self.checked:
            from wazuh_comms_trio.transport.schema import validate_reply

            validate_reply(self.daemon, self.command, reply, schema=self.schema, versioned=self.versioned)

    def result(self, payload: bytes, type: Any = None, text_errors: TextErrors = "replace") -> Any:
        """The answer's ``data``, decoded into ``type`` when given.

        Raises the daemon's own error, and :class:`AnswerInvalid` (1014) for an answer of another form.
        """
        reply = decode_json(payload, text_errors)
        self.check(reply)
        data = reply_data(reply)
        return data if type is None else decode_as(data, type)


def _looked_into(text: str | bytes) -> Any:
    """What a text that is sent as it is says, so that it can be validated all the same; the text when it isn't JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def decode_as(data: Any, type: Any) -> Any:
    """``data`` as a ``type``: attrs classes, dataclasses, typed dicts, lists of them. Imports cattrs on first use.

    :class:`AnswerInvalid` (1014) when it doesn't fit, saying where.
    """
    from cattrs import BaseValidationError, structure, transform_error

    try:
        return structure(data, type)
    except BaseValidationError as exc:
        raise AnswerInvalid(1014, "the answer doesn't fit its type: " + "; ".join(transform_error(exc))) from exc
    except (TypeError, ValueError, KeyError, AttributeError) as exc:
        raise AnswerInvalid(1014, f"the answer doesn't fit its type: {exc!r}") from exc
