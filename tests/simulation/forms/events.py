"""Events as other programs may write them: in forms that mean what ours do, and such that can't be used, each of which
is refused in its place. The forms: ``../shared/spec/PROTOCOL.md``, lines 18 and 56 to 77."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final

from attrs import evolve

from tests.simulation.model import Operation
from wazuh_comms_trio.testing.agent.client import stateful_event

__all__ = ["expected_results", "unusable_event", "written_otherwise", "written_plainly"]

#: Modules whose header lines name a collector.
_COLLECTORS: Final = {"inventory": "packages"}
#: Bytes of a data line that is longer than what is read at once.
_LONG: Final = 70_000
#: Of JSON, as it may be written.
_SEPARATORS: Final = ((",", ":"), (", ", ": "), (" ,\t", " : "))


def _header_of(operation: Operation) -> dict[str, Any]:
    header = {"id": operation.id, "module": operation.module, "operation": operation.action}
    collector = _COLLECTORS.get(operation.module)
    return header if collector is None else {**header, "collector": collector}


def written_plainly(operation: Operation) -> bytes:
    """As our own client writes it."""
    collector = _COLLECTORS.get(operation.module)
    return stateful_event(operation.id, operation.module, operation.action, operation.data, collector=collector)


def written_otherwise(rng: Random, operation: Operation) -> bytes:
    """The event in another form, which means the same."""
    header, data = _header_of(operation), operation.data
    if "collector" in header and rng.random() < 0.5:
        header["type"] = header.pop("collector")  # as older agents say it
    members = list(header.items())
    if rng.random() < 0.5:
        rng.shuffle(members)
    line = json.dumps(dict(members), separators=rng.choice(_SEPARATORS)).encode()
    if rng.random() < 0.3:
        line = _escaped(rng, line, operation.id)
    around = rng.choice([b"", b"", b" ", b"\t", b"\r"])
    pieces = [rng.choice([b"", b"", b"\n", b" \r\n"]), line, around, b"\n"]
    if operation.action == "delete":
        if rng.random() < 0.3:  # what comes with it doesn't matter
            pieces += [rng.choice([b'{"n":"of a delete"}', b"{}", b"no JSON"]), b"\n"]
    elif data or rng.random() < 0.5:
        pieces += [rng.choice([b"", b"", b"\n"]), _data_line(rng, data or {}), around, b"\n"]
    return b"".join(pieces)


def _escaped(rng: Random, line: bytes, document_id: str) -> bytes:
    """With a name or the id spelled in escapes."""
    spelled = rng.choice(["module", "operation", "id", document_id])
    escaped = "".join(f"\\u{ord(character):04x}" for character in spelled)
    return line.replace(b'"%b"' % spelled.encode(), b'"%b"' % escaped.encode(), 1)


def _data_line(rng: Random, data: Mapping[str, Any]) -> bytes:
    """Members of the metadata's name are dropped, whoever writes them."""
    strange: Sequence[Mapping[str, Any]] = ({"agent": {"id": "another"}}, {"agent.id": "another"}, {"agent": None})
    chance = rng.random()
    if chance < 0.3:
        data = {**rng.choice(strange), **data}
    elif chance < 0.5:
        data = {**data, **rng.choice(strange)}
    line = json.dumps(data, separators=rng.choice(_SEPARATORS)).encode()
    if rng.random() < 0.1:  # between the braces, where blanks mean nothing
        line = line[:-1] + b" " * _LONG + b"}"
    return line


def unusable_event(rng: Random, operation: Operation) -> bytes:
    """One that is refused without a look at the index; ``poison`` stands in it once, and the operation's id."""
    return rng.choice(_UNUSABLE)(operation)


def _other_header(operation: Operation, /, **members: Any) -> bytes:
    header = {name: value for name, value in {**_header_of(operation), **members}.items() if value is not None}
    return json.dumps(header, separators=(",", ":")).encode() + b"\n" + _own_data(operation)


def _own_data(operation: Operation) -> bytes:
    return json.dumps({**(operation.data or {}), "was": operation.id}, separators=(",", ":")).encode() + b"\n"


def _other_data(operation: Operation, data: bytes) -> bytes:
    return written_plainly(evolve(operation, data=None)) + data + b"\n"


def _twice(operation: Operation) -> bytes:
    line = _other_header(operation)
    return b'{"module":"fim",' + line[1:]


def _stray(operation: Operation) -> bytes:
    """Lines that belong to no event, behind one that is sound and has a line more than it needs."""
    sound = Operation(operation.module, f"no-{operation.id}", "delete", None)
    stray = b'{"stray":"poison","was":"%b"}' % operation.id.encode()
    return written_plainly(sound) + b"{}\n" + stray + b"\n[]\n"


_UNUSABLE: Final[Sequence[Callable[[Operation], bytes]]] = (
    lambda operation: _other_header(operation, operation="upsert"),
    lambda operation: _other_header(operation, module="unheard-of"),
    lambda operation: _other_header(operation, module="inventory", collector="unheard-of"),
    lambda operation: _other_header(operation, id=""),
    lambda operation: _other_header(operation, id=None),
    lambda operation: _other_header(operation, id=f"{operation.id}\0"),
    lambda operation: _other_header(operation, id=operation.id * 200),
    lambda operation: _other_header(operation, id=7),
    _twice,
    _stray,
    lambda operation: _other_data(operation, b'["poison"]'),
    lambda operation: _other_data(operation, b'{"text":"poison"'),
    lambda operation: _other_data(operation, b'{"text":"poison","n":%b1%b}' % (b"[" * 3000, b"]" * 3000)),
)


def expected_results(event: bytes) -> Sequence[tuple[str | None, bool]]:
    """For each result of this event: which id it has, and whether it is refused."""
    document_id = json.loads(event.strip().split(b"\n", 1)[0]).get("id")
    if b'"stray"' in event:
        return [(document_id, False), (None, True)]
    return [(document_id if isinstance(document_id, str) else None, b"poison" in event)]
