"""What the state index does to documents, as pure functions: the memory and the embedded implementation share them.

A document is one JSON object as UTF-8 bytes. What isn't touched isn't decoded and encoded again: ``1e999``, ``1.0``
beside ``1`` and integers of any length stay as the agent wrote them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import chain, pairwise
from typing import Final, NamedTuple, TypeAlias, TypeVar

import msgspec
from attrs import frozen

from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.json_size import MANY, check_utf8, has_many_members
from wazuh_comms_trio.backends.json_values import beginning, equal_json, same_spelling

T = TypeVar("T")

Key: TypeAlias = tuple[str, str]
"""Index name and document id."""


class Document(NamedTuple):
    """A stored document; ``version`` counts its writes from 1."""

    body: bytes
    version: int

    @property
    def name(self) -> str:
        """The version as quarantined events remember it, with a digest, since a document that was deleted and made anew
        counts from 1 again."""
        return f"{self.version}.{sha256(self.body).hexdigest()[:16]}"


#: The version of a document that isn't there.
ABSENT: Final = "absent"

#: A version that no document has any more: a later event has come to its document.
FORMER: Final = "former"

_decode_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raw: Final = msgspec.json.Decoder(msgspec.Raw).decode
_encode_object: Final = msgspec.json.Encoder().encode
_encode_name: Final = msgspec.json.Encoder().encode
#: Bytes of a document from which on it is put together with few copies.
_LARGE: Final = 64 * 1024
#: Levels of a document that an update may reach into, however large it is, and bytes of levels that it may in any case.
_MERGED_LEVELS: Final = 16
_MERGED_AT_LEAST: Final = 128 * 1024 * 1024

#: A create that found nothing, an update that changed something, ...: one object each, they are many.
CREATED: Final = ItemResult(201, "created")
_UPDATED: Final = ItemResult(200, "updated")
DELETED: Final = ItemResult(200, "deleted")
_NOOP: Final = ItemResult(200, "noop")
NOT_FOUND: Final = ItemResult(404, "not_found")


class NotADocument(ValueError):
    """Raised for bytes that can never be a document. The text says why."""


def read_object(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, their values as they were written; of equal names the last counts.

    Raises ``NotADocument`` when ``body`` isn't one JSON object in UTF-8.
    """
    return _checked(body, _decode_object)


def check_object(body: bytes) -> None:
    """As ``read_object``, without returning anything."""
    if not are_objects([body]):
        read_object(body)


def are_objects(bodies: Iterable[bytes | None]) -> bool:
    """Whether each text can be a document, without taking it apart: a thousand take a quarter of a millisecond."""
    try:
        for body in bodies:
            if body is None or not body.startswith(b"{"):
                return False
            check_utf8(body)
            _decode_raw(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return False
    return True


def _checked(body: bytes, decode: Callable[[bytes], T]) -> T:
    try:
        check_utf8(body)  # msgspec checks the grammar of what it keeps raw, not its encoding
        return decode(body)
    except UnicodeDecodeError as exc:
        raise NotADocument(f"failed to parse: invalid UTF-8 at byte {exc.start}") from exc
    except msgspec.ValidationError as exc:
        raise NotADocument("failed to parse: the document is not an object") from exc
    except msgspec.DecodeError as exc:
        raise NotADocument(f"failed to parse: {exc}") from exc
    except RecursionError as exc:
        raise NotADocument("failed to parse: nested too deeply") from exc


def merge(current: bytes, partial: bytes) -> bytes:
    """``current`` with ``partial`` merged in: objects merge deeply, every other value replaces. Returns ``current``
    itself when that changes nothing. Raises ``NotADocument`` for a ``partial`` that isn't an object, and where it would
    take seconds: so deep, or with so many members."""
    if current == partial:
        return current
    if has_many_members(partial) or has_many_members(current):
        raise NotADocument(f"failed to parse: more than {MANY} members can't be merged")
    merging = _Merging(max(_MERGED_AT_LEAST, _MERGED_LEVELS * (len(current) + len(partial))))
    return merging.merge(current, read_object(partial))


class _Merging:
    """One merge under way. Each level that is taken apart costs a look at all that is below it: ``left`` bytes may be
    looked at."""

    def __init__(self, left: int) -> None:
        self._left = left

    def merge(self, current: bytes, partial: Mapping[str, msgspec.Raw]) -> bytes:
        """``current`` itself where nothing changes. Raises ``NotADocument``."""
        self._left -= len(current)
        if self._left < 0:
            raise NotADocument("failed to parse: nested too deeply for its size")
        members: dict[str, msgspec.Raw] = _decode_object(current)
        changed = False
        for name, value in partial.items():
            old = members.get(name)
            if old is None:
                members[name] = value
                changed = True
                continue
            if beginning(value) == b"{" == beginning(old):
                old_bytes = bytes(old)
                self._left -= len(value)
                merged = self.merge(old_bytes, _decode_object(value))
                if merged is not old_bytes:
                    members[name] = msgspec.Raw(merged)
                    changed = True
            elif not same_spelling(bytes(old), bytes(value)):
                members[name] = value
                changed = True
        if not changed:
            return current
        return _encode_object(members) if len(current) <= _LARGE else _joined(members)


def _joined(members: Mapping[str, msgspec.Raw]) -> bytes:
    """As the encoder does it, which copies large values more than once."""
    parts = [part for name, value in members.items() for part in (b",", _encode_name(name), b":", value)]
    return b"{%b}" % b"".join(parts[1:])


def conflict(document_id: str, number: int, version: str) -> ItemResult:
    """The answer to a create of what exists, worded as the indexer words it. ``number``, ``version``: the document's
    ``version`` and ``name``."""
    text = f"[{document_id}]: version conflict, document already exists (current version [{number}])"
    return ItemResult(409, text, version=version)


def missing(document_id: str) -> ItemResult:
    """The answer to an update of what doesn't exist, worded as the indexer words it."""
    return ItemResult(404, f"[{document_id}]: document missing", version=ABSENT)


def overtaken(document_id: str, version: str) -> ItemResult:
    """The answer to an operation on a document that isn't the expected one any more; ``version``: what it is."""
    return ItemResult(412, f"[{document_id}]: the document has changed since", version=version)


def refused(reason: str, version: str = "") -> ItemResult:
    return ItemResult(400, reason, Outcome.REFUSED, version)


def version_of(present: Document | None) -> str:
    return ABSENT if present is None else present.name


def plan(
    operations: Sequence[DocumentOperation],
    current: Mapping[Key, Document],
    room: Callable[[str, Document | None, Document | None], ItemResult | None] | None = None,
) -> tuple[list[ItemResult], MutableMapping[Key, Document | None]]:
    """Apply ``operations`` in order to ``current``, which holds every document they name that exists.

    Returns the results by position and what has to be written. Equal ids within one batch see each other's effects.
    ``room``: told of each change (id, before and after); what it returns is the answer, and nothing is changed.
    """
    changes: dict[Key, Document | None] = {}
    results: list[ItemResult] = []
    known: dict[Key, tuple[Document | None, str]] = {}

    def version(key: Key, present: Document | None) -> str:
        """Once for each: that of a large document takes milliseconds."""
        if key not in known or known[key][0] is not present:
            known[key] = present, version_of(present)
        return known[key][1]

    for operation in operations:
        key = (operation.index, operation.document_id)
        present = changes[key] if key in changes else current.get(key)
        try:
            result, after = _apply(operation, present, partial(version, key, present))
        except NotADocument as exc:
            results.append(refused(str(exc), version(key, present)))
            continue
        if after is not present:
            refusal = room(operation.document_id, present, after) if room is not None else None
            if refusal is not None:
                results.append(refusal)
                continue
            changes[key] = after
        results.append(result)
    return results, changes


def _apply(
    operation: DocumentOperation, present: Document | None, version: Callable[[], str]
) -> tuple[ItemResult, Document | None]:
    if operation.expected and operation.expected != version():
        return overtaken(operation.document_id, version()), present
    if operation.refused:
        return refused(operation.refused, version()), present
    if operation.action == "delete":
        return (NOT_FOUND if present is None else DELETED), None
    if operation.body is None:
        raise NotADocument("failed to parse: the document is missing")
    if operation.action == "create":
        check_object(operation.body)
        if present is None:
            return CREATED, Document(operation.body, 1)
        if equal_json(present.body, operation.body):
            return _NOOP, present
        if operation.own:
            return _UPDATED, Document(operation.body, present.version + 1)
        return conflict(operation.document_id, present.version, version()), present
    if present is None:
        check_object(operation.body)
        return (CREATED, Document(operation.body, 1)) if operation.own else (missing(operation.document_id), None)
    body = merge(present.body, operation.body)
    if body is present.body:
        return _NOOP, present
    return _UPDATED, Document(body, present.version + 1)


def key_of(operation: DocumentOperation) -> Key:
    return operation.index, operation.document_id


def changed_later(
    operations: Sequence[DocumentOperation], results: Sequence[ItemResult | None], positions: Collection[int]
) -> set[int]:
    """The positions whose document a later one of these operations has changed."""
    keys = {key_of(operations[position]) for position in positions}
    found: set[int] = set()
    changed: set[Key] = set()
    for position in range(len(operations) - 1, min(positions, default=0) - 1, -1):
        key = key_of(operations[position])
        if key not in keys:
            continue
        if position in positions and key in changed:
            found.add(position)
        result = results[position]
        if result is not None and result.status < 300 and result.result != "noop":
            changed.add(key)
    return found


def keys_of(operations: Iterable[DocumentOperation]) -> set[Key]:
    return {(operation.index, operation.document_id) for operation in operations}


@frozen
class Requests:
    """Whose operations they are: ``starts`` are the positions where another request's begin."""

    starts: Sequence[int] = ()
    is_open: Callable[[int], bool] | None = None

    def closed(self, first: int, count: int) -> set[int]:
        """Of so many operations from ``first`` on the places that nobody waits for any more. In any thread."""
        if self.is_open is None:
            return set()
        last = first + count
        starts = self.starts[bisect_right(self.starts, first) : bisect_left(self.starts, last)]
        edges = [first, *starts, last]
        ranges = [range(start - first, stop - first) for start, stop in pairwise(edges) if not self.is_open(start)]
        return set(chain.from_iterable(ranges))
