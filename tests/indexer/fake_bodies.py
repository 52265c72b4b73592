"""Bodies of the fake OpenSearch's answers."""

from __future__ import annotations

import json
from typing import Any

from tests.indexer.fake_index import Index, Malformed, Stored, parse, to_milliseconds

Answer = tuple[int, Any]


def error(status: int, kind: str, reason: str) -> Answer:
    return status, {"error": {"type": kind, "reason": reason}, "status": status}


def read_bulk(body: bytes) -> Any:
    """Each call; one that can't be read sinks all."""
    lines = body.removesuffix(b"\n").split(b"\n")
    position = 0
    while position < len(lines):
        ((action, about),) = json.loads(lines[position]).items()
        position += 1
        if len(about["_id"].encode()) > 512:
            raise Malformed("id is too long, must be no longer than 512 bytes")
        if action == "delete":
            yield action, about, None, None
            continue
        if position == len(lines):
            return  # the last one has no source: dropped, as the real one does
        line = lines[position]
        position += 1
        if action != "update":
            yield action, about, line, None
            continue
        update = parse(line)
        upsert = json.dumps(update["doc"]).encode() if update.get("doc_as_upsert") else None
        yield action, about, upsert, update["doc"]


def failure(status: int, kind: str, reason: str) -> dict[str, Any]:
    return {"status": status, "error": {"type": kind, "reason": reason}}


def stored_body(stored: Stored) -> dict[str, Any]:
    return {"_source": stored.source, "_seq_no": stored.seq_no, "_primary_term": 1}


class Unsortable(Exception):
    """400 of a search; the text is the reason."""


SortValue = tuple[int, int | str | None]


def sort_hits(index: Index, found: list[tuple[str, Stored]], sort: list[Any], after: list[Any] | None) -> list[Any]:
    """Sorts ``found`` in place, leaves out what isn't behind ``after``, and returns what each hit was sorted by."""
    keys = [_SortKey(index, name, options) for key in sort if key != "_doc" for name, options in key.items()]
    for key in reversed(keys):
        found.sort(key=lambda hit, key=key: key.value(hit), reverse=key.down)  # type: ignore[misc]
    if after is not None:
        bound = [key.read(value) for key, value in zip(keys, after, strict=True)]
        found[:] = [hit for hit in found if _is_behind(keys, hit, bound)]
    return [[key.value(hit)[1] for key in keys] for hit in found]


def _is_behind(keys: list[_SortKey], hit: tuple[str, Stored], bound: list[SortValue]) -> bool:
    for key, limit in zip(keys, bound, strict=True):
        if (value := key.value(hit)) != limit:
            return (value < limit) if key.down else (value > limit)
    return False


class _SortKey:
    def __init__(self, index: Index, name: str, options: dict[str, str]) -> None:
        self._name = name
        self._texts = options.get("unmapped_type") == "keyword"
        self.down = options["order"] == "desc"
        # Missing ones are the least of all, or the greatest.
        self._missing = (0 if (options.get("missing", "_last") == "_first") != self.down else 2, None)
        self._values = index.values_of
        if self._texts and index.is_text(name):
            raise Unsortable(f"Text fields are not optimised for operations that require per-document data: {name}")

    def value(self, hit: tuple[str, Stored]) -> SortValue:
        if self._name == "_seq_no":
            return 1, hit[1].seq_no
        found = [each for each in self._values(self._name, hit[1].source) if not self._texts or isinstance(each, str)]
        value = found[0] if found and self._texts else to_milliseconds(found[0]) if found else None
        if value is None and not self._texts:
            value = 2**63 - 1  # what the real one says of a missing date
        return self.read(value)

    def read(self, value: Any) -> SortValue:
        return self._missing if value is None else (1, value)


def with_source(found: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """With these fields of its source alone; ``*`` is any one name."""
    if "_source" not in found:
        return found
    kept: dict[str, Any] = {}
    for field in fields:
        _keep(found["_source"], field.split("."), kept)
    return {**found, "_source": kept}


def without_source(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "_source"}


def _keep(source: Any, path: list[str], into: dict[str, Any]) -> None:
    if not isinstance(source, dict):
        return
    for name in list(source) if path[0] == "*" else [path[0]]:
        if len(path) == 1 and name in source:
            into[name] = source[name]
        elif isinstance(source.get(name), dict):
            _keep(source[name], path[1:], into.setdefault(name, {}))
