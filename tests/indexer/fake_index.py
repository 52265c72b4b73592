"""One index of the fake OpenSearch: documents with versions, searches that see the last refresh, two kinds of
mapping."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import define, field

from wazuh_comms_trio.backends.opensearch.client.queries import to_moment

Source = dict[str, Any]
#: Whether a document, by id and content, is what a query asks for.
Matcher = Callable[[str, Source], bool]
#: Characters of a text that a dynamic mapping has as a keyword, too.
IGNORED_ABOVE = 256


class Conflict(Exception):
    """409; the text is the reason."""


class Missing(Exception):
    """404 of a document."""


class Malformed(Exception):
    """400 of a document."""


@define
class Stored:
    raw: bytes
    source: Source
    seq_no: int
    version: int


@define
class Index:
    """``mappings`` as they were given at creation; what they don't name is mapped dynamically: texts with a keyword
    below."""

    name: str
    now: Callable[[], float]
    mappings: Mapping[str, Any] = field(factory=dict)
    refresh_interval: float = 1.0
    documents: dict[str, Stored] = field(factory=dict)
    visible: dict[str, Stored] = field(factory=dict)
    versions: dict[str, int] = field(factory=dict)
    refreshed_at: float = 0.0
    next_seq_no: int = 0
    closed: bool = False
    block: str | None = None

    # --- writes ---

    def write(self, document_id: str, raw: bytes, source: Source | None = None) -> Stored:
        """``source``: what ``raw`` says, if that was read already."""
        source = parse(raw) if source is None else source
        version = self.versions[document_id] = self.versions.get(document_id, 0) + 1
        stored = self.documents[document_id] = Stored(raw, source, self.next_seq_no, version)
        self.next_seq_no += 1
        return stored

    def create(self, document_id: str, raw: bytes) -> Stored:
        source = parse(raw)
        present = self.documents.get(document_id)
        if present is not None:
            text = f"[{document_id}]: version conflict, document already exists (current version [{present.version}])"
            raise Conflict(text)
        return self.write(document_id, raw, source)

    def check(self, document_id: str, if_seq_no: int) -> None:
        """A conditional write's condition."""
        text = f"[{document_id}]: version conflict, required seqNo [{if_seq_no}], primary term [1]."
        present = self.documents.get(document_id)
        if present is None:
            raise Conflict(f"{text} but no document was found")
        if present.seq_no != if_seq_no:
            raise Conflict(f"{text} current document has seqNo [{present.seq_no}] and primary term [1]")

    def update(self, document_id: str, partial: Source, if_seq_no: int | None) -> tuple[str, Stored]:
        present = self.documents.get(document_id)
        if present is None:
            raise Missing(f"[{document_id}]: document missing")
        if if_seq_no is not None:
            self.check(document_id, if_seq_no)
        merged = merge(present.source, partial)
        if same(merged, present.source):
            return "noop", present
        return "updated", self.write(document_id, json.dumps(merged).encode())

    def delete(self, document_id: str) -> bool:
        if self.documents.pop(document_id, None) is None:
            return False
        self.versions[document_id] += 1
        self.next_seq_no += 1
        return True

    # --- searches ---

    def refresh(self) -> None:
        self.visible = dict(self.documents)
        self.refreshed_at = self.now()

    def search(self, query: Mapping[str, Any]) -> list[tuple[str, Stored]]:
        if self.now() - self.refreshed_at >= self.refresh_interval:
            self.refresh()
        matches = self._matcher(query)
        return [(i, stored) for i, stored in self.visible.items() if matches(i, stored.source)]

    def _matcher(self, query: Mapping[str, Any]) -> Matcher:
        """The query, looked through once for all documents that it is asked of."""
        ((kind, body),) = query.items()
        if kind == "match_all":
            return lambda document_id, source: True
        if kind == "ids":
            return lambda document_id, source: document_id in body["values"]
        if kind == "bool":
            return self._bool(body)
        if kind == "exists":
            return lambda document_id, source: any(each is not None for each in self.values_of(body["field"], source))
        ((name, wanted),) = body.items()
        if kind == "terms":
            return lambda document_id, source: any(
                self._is_term(name, value, term) for value in self.values_of(name, source) for term in wanted
            )
        if kind == "range":
            bounds = {each: to_milliseconds(limit) for each, limit in wanted.items()}
            return lambda document_id, source: any(in_range(value, bounds) for value in self.values_of(name, source))
        raise AssertionError(f"the fake doesn't know the query {kind}")

    def _bool(self, body: Mapping[str, Any]) -> Matcher:
        def clauses(name: str) -> list[Matcher]:
            given = body.get(name, [])
            return [self._matcher(clause) for clause in (given if isinstance(given, list) else [given])]

        needed, excluded, should = clauses("filter") + clauses("must"), clauses("must_not"), clauses("should")
        least = body.get("minimum_should_match", 0 if "filter" in body or "must" in body else 1) if should else 0

        def matches(document_id: str, source: Source) -> bool:
            return (
                all(each(document_id, source) for each in needed)
                and not any(each(document_id, source) for each in excluded)
                and (not least or sum(each(document_id, source) for each in should) >= least)
            )

        return matches

    def _mapped(self, name: str) -> Mapping[str, Any] | None:
        current: Mapping[str, Any] = self.mappings
        for part in name.split("."):
            found = current.get("properties", {}).get(part)
            if found is None:
                return None
            current = found
        return current

    def is_text(self, name: str) -> bool:
        """Whether the field is there and is a dynamic text."""
        there = any(True for stored in self.documents.values() for _ in self.values_of(name, stored.source))
        return there and self._mapped(name) is None and not name.endswith(".keyword")

    def values_of(self, name: str, source: Source) -> Iterator[Any]:
        """Of a field, or of the keyword below a dynamic text."""
        if name.endswith(".keyword"):
            if self._mapped(name.removesuffix(".keyword")) is None:
                texts = (value for value in flatten(source, name.removesuffix(".keyword")) if isinstance(value, str))
                yield from (text for text in texts if len(text) <= IGNORED_ABOVE)
            return
        yield from flatten(source, name)

    def _is_term(self, name: str, value: Any, term: Any) -> bool:
        if isinstance(value, str) and self._mapped(name) is None and not name.endswith(".keyword"):
            return str(term) in re.findall(r"\w+", value.lower())
        return bool(value == term)


def parse(raw: bytes) -> Source:
    """As strict as the real one: no duplicate names, no text that isn't UTF-8, an object."""

    def unique(pairs: list[tuple[str, Any]]) -> Source:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise Malformed("failed to parse: Duplicate field")
        return dict(pairs)

    try:
        source = json.loads(raw.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"failed to parse: {exc}") from exc
    if not isinstance(source, dict):
        raise Malformed("failed to parse: not an object")
    return source


def flatten(source: Any, name: str) -> Iterator[Any]:
    if isinstance(source, list):
        for each in source:
            yield from flatten(each, name)
    elif not name:
        if source is not None:
            yield source
    elif isinstance(source, dict):
        first, _, rest = name.partition(".")
        if first in source:
            yield from flatten(source[first], rest)


def in_range(value: Any, bounds: Mapping[str, float | None]) -> bool:
    """``bounds``: in milliseconds; None: of no moment."""
    moment = to_milliseconds(value)
    return moment is not None and all(
        bound is not None and {"lt": moment < bound, "lte": moment <= bound, "gt": moment > bound}[name]
        for name, bound in bounds.items()
    )


def to_milliseconds(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    moment = to_moment(value)
    return None if moment is None else moment * 1000


def merge(source: Source, partial: Source) -> Source:
    merged = copy.copy(source)
    for name, value in partial.items():
        present = merged.get(name)
        merged[name] = merge(present, value) if isinstance(present, dict) and isinstance(value, dict) else value
    return merged


def same(first: Any, second: Any) -> bool:
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
