"""wazuh-db's answers: ``ok``, ``ok <payload>``, ``err <text>``, ``due <json>``, or a JSON object.

``due`` means one of two things, and only the query tells which. *Paging*: one frame per query, and the caller asks
again with the last id until ``ok``. *Row streaming*: many ``due`` frames follow one query, then ``ok``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from wazuh_comms_trio.errors import AnswerCut, AnswerInvalid, WazuhError
from wazuh_comms_trio.wire.envelope import TextErrors, decode_text, reply_data

#: wazuh-db cuts the answer to an SQL query at this many bytes, without a word.
CUT_BYTES: Final[int] = 65536

OK: Final[str] = "ok"
ERR: Final[str] = "err"
DUE: Final[str] = "due"
#: What ``quick_data`` has to leave to ``parse_reply``.
NOT_QUICK: Final = object()
_decode: Final = json.JSONDecoder().raw_decode
#: The status of an answer that is a JSON object (what JSON requests get).
JSON: Final[str] = "json"


class WdbReply(NamedTuple):
    """One answer frame. ``status`` is ``ok``, ``due``, ``err`` or ``json``; ``text`` is what stands behind it, as it
    came.
    """

    status: str
    text: str
    #: The frame was exactly as long as the daemon's limit, so that its end may be missing.
    maybe_cut: bool = False

    @property
    def is_last(self) -> bool:
        """No further frame of this answer follows by itself."""
        return self.status != DUE

    def checked(self) -> WdbReply:
        """This answer, unless it is an error: then ``WazuhError(1014, <the daemon's text>, cmd_error=True)``.

        ``err`` with a text that has a number of its own keeps it only in the text: wazuh-db's numbers aren't ours.
        """
        if self.status == ERR:
            raise WazuhError(1014, self.text or "wazuh-db gave no reason", cmd_error=True)
        return self

    def only(self) -> WdbReply:
        """This answer, unless more frames or pages follow: then :class:`AnswerInvalid` (1014), since it is a part."""
        if self.status == DUE:
            raise AnswerInvalid(1014, f"this is a part of the answer, more follows: {self.text[:60]!r}")
        return self

    def members(self) -> Mapping[str, Any]:
        """All members of an answer that is a JSON object, none of any other. :class:`AnswerInvalid` (1014) for one
        that begins as an object and isn't JSON.
        """
        if self.status != JSON:
            return {}
        try:
            value = json.loads(self.text)
        except (ValueError, RecursionError) as exc:
            raise AnswerInvalid(1014, f"the answer isn't JSON: {exc}; it begins with {self.text[:60]!r}") from exc
        return value if isinstance(value, dict) else {}

    def data(self) -> Any:
        """The payload: decoded JSON, or the text when it is none; for a JSON object its ``data``. None for a bare
        ``ok``.

        Raises for ``err`` as :meth:`checked`, a JSON object's error under its own number, :class:`AnswerCut` for what
        was cut at 65536 bytes.
        """
        self.checked()
        text = self.text.strip()
        if not text:
            return None
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as exc:
            if self.maybe_cut:
                raise AnswerCut(1014, "wazuh-db cut its answer at 65536 bytes; ask for fewer rows or columns") from None
            if self.status == DUE:
                raise AnswerInvalid(1014, f"a due answer isn't JSON: {exc}; it begins with {text[:60]!r}") from exc
            return self.text
        return reply_data(value) if self.status == JSON else value

    def rows(self) -> list[dict[str, Any]]:
        """The payload as rows. NULL columns are absent from a row. Errors as :meth:`data`, 1014 when it is something
        else.
        """
        value = self.data()
        if value is None:
            return []
        rows = value if isinstance(value, list) else [value]
        if not all(isinstance(row, dict) for row in rows):
            raise AnswerInvalid(1014, f"wazuh-db's answer has no rows; it begins with {self.text[:60]!r}")
        return rows


def parse_reply(payload: bytes, text_errors: TextErrors = "replace") -> WdbReply:
    """One frame as an answer. :class:`AnswerInvalid` for what wazuh-db never says, and with ``strict`` for what isn't
    UTF-8; see :func:`decode_text`.

    A frame cut inside a character keeps its readable part: it says that it may be cut, and :meth:`WdbReply.data`
    raises for it.
    """
    maybe_cut = len(payload) == CUT_BYTES
    text = decode_text(payload, "replace" if maybe_cut else text_errors)
    if text.startswith("{"):
        return WdbReply(JSON, text, maybe_cut)
    status, _, rest = text.partition(" ")
    status = status.rstrip("\n")
    if status not in (OK, ERR, DUE):
        raise AnswerInvalid(1014, f"wazuh-db answered neither ok, err nor due: {text[:60]!r}")
    return WdbReply(status, rest, maybe_cut)


def quick_data(payload: bytes) -> Any:
    """What ``parse_reply(payload).data()`` gives, in a third of the time, for an answer that is whole, says ``ok`` and
    has JSON in UTF-8; ``NOT_QUICK`` for any other.
    """
    if payload.startswith(b"ok ") and len(payload) != CUT_BYTES:
        try:
            text = payload[3:].decode()
            data, end = _decode(text)
        except (ValueError, RecursionError):
            return NOT_QUICK
        if end == len(text):
            return data
    return NOT_QUICK


def is_last_frame(payload: bytes) -> bool:
    """Whether no further frame of a streamed answer follows this one. Cheap: looks at the first bytes only."""
    return not payload.startswith(b"due")
