"""Moments as text and back."""

from __future__ import annotations

import math

import pytest

from wazuh_comms_trio.foundation.timestamps import from_iso, to_iso


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1741720356.629, "2025-03-11T19:12:36.629Z"),
        (1741720356.9996, "2025-03-11T19:12:37.000Z"),
        (-0.5, "1969-12-31T23:59:59.500Z"),
        (-62_135_596_800, "0001-01-01T00:00:00.000Z"),
        (math.inf, "9999-12-31T23:59:59.999Z"),
        (-math.inf, "0001-01-01T00:00:00.000Z"),
    ],
)
def test_as_text(moment: float, text: str) -> None:
    assert to_iso(moment) == text
    assert to_iso(moment, milliseconds=False) == text[:19] + "Z"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-03-11T19:12:36.629Z", 1741720356.629),
        ("2025-03-11T20:12:36.629+01:00", 1741720356.629),
        ("2025-03-11T19:12:36", 1741720356.0),
        ("2025-03-11T19:12:36.123456789Z", 1741720356.123456),
        (" 2025-03-11 ", 1741651200.0),
        ("yesterday", None),
        ("", None),
    ],
)
def test_from_text(text: str, moment: float | None) -> None:
    assert from_iso(text) == (None if moment is None else pytest.approx(moment))
