"""Queries and values that hold on the explicit mappings of a Wazuh indexer and on dynamic ones. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from wazuh_comms_trio.foundation.timestamps import from_iso

Query = Mapping[str, Any]

#: Numbers below this are epoch seconds (until the year 5138), from it on epoch milliseconds (since 1973).
_MILLISECONDS_FROM: Final = 1e11
#: The end of the year 9999: a date of a document that lies beyond it is none.
_LATEST_MILLISECONDS: Final = 253_402_300_799_999


def exactly(field: str, values: Iterable[str]) -> Query:
    """Documents whose ``field`` is one of ``values``, character by character.

    An explicit mapping makes it a ``keyword``. A dynamic one makes it ``text``, where a term finds words, not values,
    with a ``keyword`` below that holds the values. So: the one below, or, where there is none, the field itself.
    """
    wanted = list(values)
    below = f"{field}.keyword"
    itself = {"bool": {"must": [{"terms": {field: wanted}}], "must_not": [{"exists": {"field": below}}]}}
    return {"bool": {"should": [{"terms": {below: wanted}}, itself], "minimum_should_match": 1}}


def every(*queries: Query) -> Query:
    return {"bool": {"filter": list(queries)}}


def nothing_of(query: Query, *unwanted: Query) -> Query:
    return {"bool": {"filter": [query], "must_not": list(unwanted)}}


def by_time(field: str, order: str) -> Mapping[str, Any]:
    """A sort key that an empty index, or one without the field, takes too."""
    return {field: {"order": order, "unmapped_type": "date", "missing": "_last"}}


#: The longest document id that the indexer takes, in UTF-8. One longer, or an empty one, sinks a whole call.
LONGEST_ID: Final = 512


def encode_json(value: Any) -> bytes:
    """A value as JSON in UTF-8; half a surrogate pair, which JSON can carry and UTF-8 can't, becomes a question
    mark."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def is_possible_id(document_id: str) -> bool:
    """Whether a document can have this id; what can't have been stored needn't be looked for. Ids come from agents."""
    try:
        return 0 < len(document_id.encode()) <= LONGEST_ID
    except UnicodeEncodeError:  # half of a pair
        return False


def to_moment(value: object) -> float | None:
    """A date of a document as epoch seconds: ISO 8601, epoch milliseconds, or epoch seconds; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return from_iso(str(value))
    if isinstance(value, int | float) and abs(value) <= _LATEST_MILLISECONDS:  # a number that is none isn't
        return float(value) if abs(value) < _MILLISECONDS_FROM else value / 1000
    return None
