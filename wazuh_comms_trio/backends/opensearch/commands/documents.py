"""A command as the indexer keeps it, whichever program wrote it; and what each step of its life changes there. Pure.

What only this program uses stands under ``delivery``: ``token`` (whose claim it is), ``offered`` (it was written to the
agent at least once), ``renewed``, ``sent_at`` and ``answer_by`` (epoch milliseconds: a number is a number in every
mapping), and ``data``, a result's data that a keyword can't hold, as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from attrs import evolve, frozen

from wazuh_comms_trio.backends.interfaces import Action, Command, CommandResult, CommandStatus, Target
from wazuh_comms_trio.backends.opensearch.client.found import Found
from wazuh_comms_trio.backends.opensearch.client.queries import Query, exactly, nothing_of, to_moment
from wazuh_comms_trio.backends.opensearch.client.slices import is_too_deep
from wazuh_comms_trio.backends.unreadable import DECODE_ERRORS
from wazuh_comms_trio.foundation.timestamps import to_iso

#: What a keyword holds at most is 32766 bytes; readers of other programs get the beginning.
_LONGEST_KEYWORD: Final = 8000
_DEFAULT_TIMEOUT: Final = 100.0

#: What a document's steps need of it: one whose rest can't be read can still be cancelled or ended.
ESSENTIAL: Final = (
    "@timestamp",
    "delivery_timestamp",
    "command.status",
    "command.target",
    "command.timeout",
    "command.action.name",
    "command.result.code",
    "delivery.token",
    "delivery.offered",
    "delivery.renewed",
    "delivery.sent_at",
)

_STATUSES: Final[Mapping[str, CommandStatus]] = {
    "pending": "pending",
    "sent": "sent",
    "success": "success",
    "failed": "failed",
    "failure": "failed",
}


def status_query(status: CommandStatus) -> Query:
    """Matches a status however it is written: older writers use capitals, others write ``failure``."""
    words = [word for word, meaning in _STATUSES.items() if meaning == status]
    return exactly("command.status", [spelling for word in words for spelling in (word, word.upper(), word.title())])


def id_query(field: str, *agent_ids: str) -> Query:
    return exactly(field, [spelling for agent_id in agent_ids for spelling in {agent_id, agent_id.upper()}])


AGENTS: Final = exactly("command.target.type", ["agent", "AGENT", "Agent"])
GROUPS: Final = exactly("command.target.type", ["group", "GROUP", "Group"])
#: Pending commands for agents and groups: those for servers are another program's.
PENDING: Final = nothing_of(status_query("pending"), exactly("command.target.type", ["server"]))


@frozen
class Document:
    """One version of a command's document. ``seen_at`` (epoch seconds) stands in for a time that its writer left
    out. ``index`` and ``routing``: where it lies, if its id doesn't say so. ``partial``: only some of it is
    known, since the indexer can't give all. ``rebuilt``: what is known is what is indexed, and the next change replaces
    the document by it."""

    id: str
    source: Mapping[str, Any]
    seq_no: int
    primary_term: int
    seen_at: float
    index: str | None = None
    routing: str | None = None
    partial: bool = False
    rebuilt: bool = False

    @property
    def token(self) -> str | None:
        token = _part(self.source, "delivery").get("token")
        return token if isinstance(token, str) and token else None

    @property
    def offered(self) -> bool:
        return _part(self.source, "delivery").get("offered") is True

    @property
    def renewed_at(self) -> object:
        """When the claim was renewed, as it stands there: epoch milliseconds, if it was this program that wrote it."""
        return _part(self.source, "delivery").get("renewed")

    @property
    def status(self) -> CommandStatus:
        """An unknown word counts as ``sent``: some program's way of saying that the command is under way."""
        word = _part(self.source, "command").get("status")
        return _STATUSES.get(str(word).lower(), "sent")

    @property
    def command(self) -> Command:
        fields = _part(self.source, "command")
        delivery = _part(self.source, "delivery")
        target, action = _part(fields, "target"), _part(fields, "action")
        kind = str(target.get("type") or "agent").lower()
        target_id = str(target.get("id") or "")
        timeout = _number(fields.get("timeout"), _DEFAULT_TIMEOUT)
        created_at = self._created_at(timeout)
        result = _result(_part(fields, "result"), delivery.get("data"))
        sent_at = _moment(delivery.get("sent_at"))
        if sent_at is None and (self.status == "sent" or (result is not None and result.code is not None)):
            sent_at = created_at
        args = action.get("args")
        return Command(
            document_id=self.id,
            target=Target(
                cast(Any, kind if kind in ("agent", "group") else "server"),
                target_id.lower() if kind == "agent" else target_id,
            ),
            action=Action(str(action.get("name") or ""), _text(action.get("version")), args if _is_map(args) else None),
            timeout=timeout,
            request_id=_text(fields.get("request_id")),
            order_id=_text(fields.get("order_id")),
            source=_text(fields.get("source")),
            user=_text(fields.get("user")),
            status=self.status,
            result=result,
            created_at=created_at,
            sent_at=sent_at,
        )

    def _created_at(self, timeout: float) -> float:
        made = to_moment(self.source.get("@timestamp"))
        if made is not None:
            return made
        deadline = to_moment(self.source.get("delivery_timestamp"))
        return self.seen_at if deadline is None else deadline - timeout

    def after(self, partial: Mapping[str, Any], seq_no: int, primary_term: int) -> Document:
        """The document as it is once ``partial`` was merged in."""
        merged = _merge(self.source, partial)
        return evolve(self, source=merged, seq_no=seq_no, primary_term=primary_term, rebuilt=False)


def find_problem(source: object) -> str | None:
    """Why a document is no command, for the log and the operator; None: it is one."""
    fields = source.get("command") if isinstance(source, dict) else None
    if not isinstance(fields, dict):
        return "it has no object `command`"
    status = fields.get("status")
    return None if status is None or isinstance(status, str) else "its `command.status` is no text"


def read(found: Found, seen_at: float) -> Document:
    source = found.source if _is_map(found.source) else {}
    return Document(found.id, source, found.seq_no, found.primary_term, seen_at, found.index or None, found.routing)


def document_to(document: Document) -> dict[str, Any]:
    """A document as JSON, for another worker."""
    return {
        "id": document.id,
        "source": document.source,
        "seq_no": document.seq_no,
        "primary_term": document.primary_term,
        "seen_at": document.seen_at,
        "index": document.index,
        "routing": document.routing,
    }


def document_from(data: Mapping[str, Any]) -> Document:
    place = data.get("index"), data.get("routing")  # an earlier version's have none
    return Document(data["id"], data["source"], data["seq_no"], data["primary_term"], data["seen_at"], *place)


def to_document(command: Command, token: str | None = None) -> dict[str, Any]:
    """A new command's document; fields without a value are left out. ``token``: claimed from the start."""
    action = {"name": command.action.name, "version": command.action.version, "args": command.action.args}
    fields: dict[str, Any] = {
        "source": command.source,
        "user": command.user,
        "status": command.status,
        "order_id": command.order_id,
        "request_id": command.request_id,
        "target": {"type": command.target.type, "id": command.target.id},
        "action": {name: value for name, value in action.items() if value is not None},
        "timeout": int(command.timeout) if float(command.timeout).is_integer() else command.timeout,
    }
    document: dict[str, Any] = {
        "@timestamp": to_iso(command.created_at),
        "delivery_timestamp": to_iso(command.created_at + command.timeout),
        "command": {name: value for name, value in fields.items() if value is not None},
    }
    if token is not None:
        document["delivery"] = {"token": token}
    return document


# --- the steps of its life, as partial documents ---


def claimed(token: str) -> dict[str, Any]:
    return {"delivery": {"token": token, "offered": True}}


def renewed(now: float) -> dict[str, Any]:
    return {"delivery": {"renewed": round(now * 1000)}}


def released() -> dict[str, Any]:
    return {"delivery": {"token": None}}


def sent(command: Command, now: float) -> dict[str, Any]:
    return {"command": {"status": "sent"}, "delivery": {"token": None, **_sent_at(command, now)}}


def ended(command: Command) -> dict[str, Any]:
    """The change that ends a command by an agent's report, an expiry or a cancellation."""
    result = command.result or CommandResult()
    data, extra = _fit_data(result.data)
    document: dict[str, Any] = {
        "command": {
            "status": command.status,
            "result": {"code": result.code, "message": _fit(result.message), "data": data},
        },
        "delivery": {"token": None, "data": extra},
    }
    if command.sent_at is not None:
        document["delivery"] |= _sent_at(command, command.sent_at)
    return document


def _sent_at(command: Command, moment: float) -> dict[str, Any]:
    return {"sent_at": round(moment * 1000), "answer_by": round((moment + command.timeout) * 1000)}


# --- values ---


def _fit(text: str | None) -> str | None:
    return text if text is None else text[:_LONGEST_KEYWORD]


def _fit_data(data: Any) -> tuple[str | None, str | None]:
    """The part of a result's data that goes into the result itself, and the JSON text beside it when that isn't all."""
    if data is None:
        return None, None
    if isinstance(data, str) and len(data) <= _LONGEST_KEYWORD:
        return data, None
    whole = json.dumps(data, ensure_ascii=False)
    return whole[:_LONGEST_KEYWORD], whole


def _result(fields: Mapping[str, Any], data: object) -> CommandResult | None:
    code, message, plain = fields.get("code"), fields.get("message"), fields.get("data")
    if isinstance(data, str):
        plain = _read_data(data)
    if code is None and message is None and plain is None:
        return None
    number = _number(code, None)
    return CommandResult(None if number is None else int(number), _text(message), plain)


def _read_data(text: str) -> Any:
    """A result's data from its JSON text; what is none, or too deep, stays text."""
    try:
        encoded = text.encode()
        return text if is_too_deep(encoded) else msgspec.json.decode(encoded)
    except (UnicodeEncodeError, *DECODE_ERRORS):
        return text


def _moment(milliseconds: object) -> float | None:
    """A date as epoch seconds, within the calendar."""
    number = _number(milliseconds, None)
    return None if number is None or to_moment(number) is None else number / 1000


def _number(value: object, default: Any) -> Any:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 1e15:
        return default
    return value


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _is_map(value: object) -> bool:
    return isinstance(value, dict)


def _part(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One object of the document; one that is something else, or isn't there, is empty."""
    value = source.get(name)
    return value if isinstance(value, dict) else {}


def _merge(source: Mapping[str, Any], partial: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(source)
    for name, value in partial.items():
        present = merged.get(name)
        merged[name] = _merge(present, value) if isinstance(present, dict) and isinstance(value, dict) else value
    return merged
