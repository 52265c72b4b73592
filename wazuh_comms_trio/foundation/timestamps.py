"""Moments as text: RFC 3339 (ISO 8601) in UTC. In the program they are epoch seconds."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime
from typing import Final

__all__ = ["from_iso", "to_iso"]

#: The years 1 to 9999, in epoch milliseconds, as dates of four digits.
_EARLIEST: Final = -62_135_596_800_000
_LATEST: Final = 253_402_300_799_999
_FRACTION: Final = re.compile(r"\.(\d+)")


def to_iso(moment: float, *, milliseconds: bool = True) -> str:
    """Epoch seconds as ``2025-03-11T19:12:36.629Z``, or without the fraction. What lies beyond the calendar is its
    end."""
    rounded = round(min(max(moment * 1000, _EARLIEST), _LATEST))
    text = datetime.fromtimestamp(rounded // 1000, UTC).isoformat()[:19]
    return f"{text}.{rounded % 1000:03d}Z" if milliseconds else f"{text}Z"


def from_iso(text: str) -> float | None:
    """Epoch seconds of any date and time in ISO 8601, UTC where it names no zone; None for anything else."""
    try:  # more digits than Python takes are nanoseconds
        moment = datetime.fromisoformat(_FRACTION.sub(lambda match: f".{match[1][:6]:0<6}", text.strip(), count=1))
    except ValueError:
        return None
    if moment.tzinfo is None:
        return calendar.timegm(moment.timetuple()) + moment.microsecond / 1e6
    return moment.timestamp()
