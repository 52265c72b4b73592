"""Queries and values that hold on the explicit mappings of a Wazuh indexer and on dynamic ones. Pure."""

from __future__ import annotations

import calendar
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

Query = Mapping[str, Any]

#: Numbers below this are epoch seconds (until the year 5138), from it on epoch milliseconds (since 1973).
_MILLISECONDS_FROM: Final = 1e11
_FRACTION: Final = re.compile(r"\.(\d+)")


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
#: The years 1 to 9999, in epoch milliseconds, as dates of four digits.
_EARLIEST: Final = -62_135_596_800_000
_LATEST: Final = 253_402_300_799_999


def encode_json(value: Any) -> bytes:
    """As UTF-8; half a surrogate pair, which JSON can carry and UTF-8 can't, becomes a question mark."""
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


def to_text(moment: float) -> str:
    """Epoch seconds as the indexer's dates are written: ISO 8601, UTC, milliseconds. What lies beyond the calendar is
    its end."""
    milliseconds = round(min(max(moment * 1000, _EARLIEST), _LATEST))
    whole = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{whole.year:04d}-{whole:%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def to_moment(value: object) -> float | None:
    """A date of a document as epoch seconds: ISO 8601, epoch milliseconds, or epoch seconds; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return _parse_iso(str(value))
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value) if abs(value) < _MILLISECONDS_FROM else value / 1000
    return None


def _parse_iso(text: str) -> float | None:
    try:  # more digits than Python takes are nanoseconds
        moment = datetime.fromisoformat(_FRACTION.sub(lambda match: f".{match[1][:6]:0<6}", text.strip(), count=1))
    except ValueError:
        return None
    if moment.tzinfo is None:  # the indexer takes it for UTC
        return calendar.timegm(moment.timetuple()) + moment.microsecond / 1e6
    return moment.timestamp()
