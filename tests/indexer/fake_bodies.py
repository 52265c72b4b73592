"""Bodies of the fake OpenSearch's answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.indexer.fake_index import Malformed, Stored, flatten, parse, to_milliseconds

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


def sort_key(name: str) -> Callable[[tuple[str, Stored]], Any]:
    def key(found: tuple[str, Stored]) -> Any:
        if name == "_seq_no":
            return found[1].seq_no
        values = [to_milliseconds(value) for value in flatten(found[1].source, name)]
        return values[0] if values and values[0] is not None else 2**63 - 1

    return key


def with_source(found: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """With these fields of its source alone; ``*`` is any one name."""
    if "_source" not in found:
        return found
    kept: dict[str, Any] = {}
    for field in fields:
        _keep(found["_source"], field.split("."), kept)
    return {**found, "_source": kept}


def _keep(source: Any, path: list[str], into: dict[str, Any]) -> None:
    if not isinstance(source, dict):
        return
    for name in list(source) if path[0] == "*" else [path[0]]:
        if len(path) == 1 and name in source:
            into[name] = source[name]
        elif isinstance(source.get(name), dict):
            _keep(source[name], path[1:], into.setdefault(name, {}))
