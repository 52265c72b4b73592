"""Messages as JSON: the version 1 envelope that programs send, and the daemons' ``{"error", "message", "data"}``
answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from wazuh_comms_trio.errors import AnswerInvalid, DaemonRefusal, MessageInvalid, daemon_error

SOCKET_COMMUNICATION_PROTOCOL_VERSION: Final[int] = 1

#: What becomes of bytes of an answer that aren't UTF-8.
TextErrors: TypeAlias = Literal["replace", "strict", "surrogateescape"]


def create_wazuh_socket_message(
    origin: Any = None, command: str | None = None, parameters: Any = None
) -> dict[str, Any]:
    """A version 1 message with each of the three that was given (``None`` means: not given)."""
    message: dict[str, Any] = {"version": SOCKET_COMMUNICATION_PROTOCOL_VERSION}
    if origin is not None:
        message["origin"] = origin
    if command is not None:
        message["command"] = command
    if parameters is not None:
        message["parameters"] = parameters
    return message


def encode_json(message: Any) -> bytes:
    """``message`` as JSON text in ASCII. 1012 for what JSON can't say: NaN, sets, keys that aren't strings, cycles."""
    try:
        return json.dumps(message, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise MessageInvalid(1012, f"the message can't be written as JSON: {exc}") from exc


def encode_text(text: str) -> bytes:
    """``text`` in UTF-8. 1012 for what UTF-8 can't say (lone surrogates)."""
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise MessageInvalid(1012, f"the message can't be written in UTF-8: {exc}") from exc


def strip_nul(payload: bytes) -> bytes:
    """Without the one trailing NUL that C programs count as part of their text."""
    return payload[:-1] if payload.endswith(b"\0") else payload


def decode_text(payload: bytes, errors: TextErrors = "replace") -> str:
    """A daemon's text answer. What isn't UTF-8 (inventories have such names) is replaced by U+FFFD, so that one byte
    doesn't cost the whole answer; with ``strict`` it is :class:`AnswerInvalid`, ``surrogateescape`` keeps the bytes."""
    try:
        return strip_nul(payload).decode(errors=errors)
    except UnicodeDecodeError as exc:
        raise AnswerInvalid(1014, f"the answer isn't UTF-8: {exc}") from exc


def decode_json(payload: bytes, errors: TextErrors = "replace") -> Any:
    """A daemon's JSON answer, whatever its form. :class:`AnswerInvalid` when it isn't JSON. ``errors`` as in
    :func:`decode_text`."""
    text = decode_text(payload, errors)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise AnswerInvalid(1014, f"the answer isn't JSON: {exc}; it begins with {text[:60]!r}") from exc


def is_due(reply: Mapping[str, Any]) -> bool:
    """Whether this is a page after which more follow: a success, although its ``error`` is 1."""
    return reply.get("error") == 1 and reply.get("message") == "due"


def reply_data(reply: Any) -> Any:
    """The ``data`` of an answer ``{"error", "message", "data"}``, None when a successful one has none.

    A non-zero ``error`` raises ``WazuhException(error, message, cmd_error=True)``: the daemon's own number and text.
    One that is a word, or ``"status": "error"``, raises :class:`DaemonRefusal`, which keeps the word and the message.
    A page that is ``due`` (``error`` 1) is a success. An answer of 5.0 without ``error``: its ``data`` where it has
    some, else, where it has a ``status``, the whole of it. :class:`AnswerInvalid` when the answer is nothing of this.
    """
    if not isinstance(reply, Mapping):
        raise AnswerInvalid(1014, f"the answer is no JSON object but {type(reply).__name__}")
    error = reply.get("error")
    if error and not is_due(reply):
        if isinstance(error, str):
            raise DaemonRefusal(error, _reason(reply))
        if not isinstance(error, int):
            raise AnswerInvalid(1014, f"the answer's error is neither a number nor a word: {error!r:.60}")
        raise daemon_error(int(error), str(reply.get("message") or "the daemon gave no reason"))
    if "data" in reply or "error" in reply:
        return reply.get("data")
    if reply.get("status") == "error":
        raise DaemonRefusal("error", _reason(reply))
    if "status" in reply:
        return dict(reply)
    raise AnswerInvalid(1014, f"the answer has neither error nor data nor status: {reply!r:.60}")


def _reason(reply: Mapping[str, Any]) -> str | None:
    message = reply.get("message")
    return None if message is None else str(message)


def carries_version(message: Any) -> bool:
    """Whether this is an enveloped message, whose form is known and can be checked."""
    return isinstance(message, Mapping) and "version" in message
