"""Queries and values that hold on the explicit mappings of a Wazuh indexer and on dynamic ones. Pure."""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

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


def to_text(moment: float) -> str:
    """Epoch seconds as the indexer's dates are written: ISO 8601, UTC, milliseconds."""
    milliseconds = round(moment * 1000)
    whole = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


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
