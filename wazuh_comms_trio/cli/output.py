"""What the operator's tool prints: tables and sentences for people, or one JSON document."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from wazuh_comms_trio.cli.program import printable
from wazuh_comms_trio.foundation.timestamps import to_iso

#: A column is cut to this at least.
_NARROWEST: Final = 8
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Output:
    """``as_json``: one JSON document, and nothing else, on stdout."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def document(self, document: Any, text: str) -> None:
        """The result: the document, or the text, whose lines are ours: see ``lines``, ``pairs``, ``table``."""
        if self.as_json:
            print(json.dumps(document, indent=2 if sys.stdout.isatty() else None))
        elif text:
            print("\n".join(printable(line) for line in text.split("\n")))

    def line(self, document: Any) -> None:
        """One of many: one JSON document a line, whatever the form."""
        print(json.dumps(document, ensure_ascii=self.as_json, separators=(",", ":")), flush=True)

    def note(self, text: str) -> None:
        """For the person at the terminal only."""
        if not self.as_json:
            print(printable(text), file=sys.stderr)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of equal width, the last one open. On a terminal that is too narrow, dates are shortened and the widest
    columns cut, but never the first, which is what a row is known by."""
    cells = [list(heads), *([printable("-" if cell in (None, "") else str(cell)) for cell in row] for row in rows)]
    width = terminal_width()
    widths = _widths(cells)
    if width is not None and _total(widths) > width:
        cells = [[_short_date(cell) for cell in row] for row in cells]
        widths = _widths(cells)
        while _total(widths) > width and (widest := max(widths[1:], default=0)) > _NARROWEST:
            widths[widths.index(widest, 1)] -= 1
    return "\n".join(
        "  ".join(_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None for a file or a pipe, which is as wide as a line is long."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _short_date(cell: str) -> str:
    """``2025-03-11T19:12:36Z`` -> ``03-11 19:12``."""
    return f"{cell[5:10]} {cell[11:16]}" if _DATE.fullmatch(cell) else cell


def lines(texts: Iterable[str]) -> str:
    """Each text is one line, whatever is in it: agents' texts can't make lines of their own."""
    return "\n".join(map(printable, texts))


def pairs(values: Mapping[str, object]) -> str:
    """``name   value``, one a line whatever is in them; what is None is left out."""
    shown = {printable(name): printable(str(value)) for name, value in values.items() if value is not None}
    width = max(map(len, shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown.items())


def timestamp(when: float | None) -> str | None:
    """Epoch seconds -> ``2025-03-11T19:12:36Z``."""
    return None if when is None else to_iso(when, milliseconds=False)


def duration(seconds: float, *, spelled_out: bool = False) -> str:
    """``90 s``, ``15 min``, ``2.5 h``, ``3.1 days``; spelled out ``15 minutes``, ``3 hours``, ``3 days``."""
    minutes, hours, digits = ("minutes", "hours", 0) if spelled_out else ("min", "h", 1)
    if seconds < 7200:
        return f"{max(0.0, seconds):.0f} s" if seconds < 120 else f"{seconds / 60:.0f} {minutes}"
    if seconds < 172800:
        return f"{seconds / 3600:.{digits}f} {hours}"
    return f"{seconds / 86400:.{digits}f} days"
