"""What the operator's tool prints: tables and sentences for people, or one JSON document."""

from __future__ import annotations

import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import indent
from typing import Any, Final

from wazuh_comms_trio.foundation.journal import printable
from wazuh_comms_trio.foundation.timestamps import to_iso

#: A column is cut to this at least.
_NARROWEST: Final = 8
#: What is cut to this is still told from others.
_LEGIBLE: Final = 20
_SHORT_DATE: Final = re.compile(r"\d\d-\d\d \d\d:\d\d")
#: Blanks at an end of a cell, and those after the first of several.
_ODD_BLANK: Final = re.compile(r"^ | $|(?<= ) ")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Output:
    """``as_json``: one JSON document, and nothing else, on stdout."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def document(self, document: Any, text: str) -> None:
        """Prints the result: the document, or the text, whose lines are ours: see ``lines``, ``pairs``, ``table``."""
        if self.as_json:
            print(json.dumps(document, indent=2 if sys.stdout.isatty() else None))
        elif text:
            print("\n".join(printable(line) for line in text.split("\n")))

    @contextmanager
    def listing(self, heads: Sequence[str], spare: Sequence[str] = ()) -> Iterator[Listing]:
        """Prints a long result page by page as it is read: one JSON document in the end, or a table (see ``table``)."""
        listing = Listing(heads, spare, as_json=self.as_json)
        yield listing
        listing.end()

    def line(self, document: Any) -> None:
        """Prints one of many results: one JSON document a line, whatever the form."""
        print(json.dumps(document, ensure_ascii=self.as_json, separators=(",", ":")), flush=True)

    def note(self, text: str) -> None:
        """Prints a remark for the person at the terminal only."""
        if not self.as_json:
            print(printable(text), file=sys.stderr)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], spare: Sequence[str] = ()) -> str:
    """Columns of equal width, the last one open. On a terminal that is too narrow, dates are shortened and the widest
    columns cut, but never the first, which is what a row is known by; where they would be cut beyond reading those of
    ``spare`` are left out, one after the other."""
    return _Columns(heads, spare).page(rows)


class Listing:
    """Rows and documents in pages. A table's columns are as wide as the pages until then need."""

    def __init__(self, heads: Sequence[str], spare: Sequence[str] = (), *, as_json: bool) -> None:
        self.rows = 0
        self._columns = _Columns(heads, spare)
        self._as_json = as_json
        self._indent = 2 if as_json and sys.stdout.isatty() else None

    def page(self, documents: Iterable[Any], rows: Sequence[Sequence[object]]) -> None:
        """As many documents as rows; of a table they aren't looked at."""
        if not rows:
            return
        if not self._as_json:
            print("\n".join(printable(line) for line in self._columns.page(rows).split("\n")), flush=True)
        elif self._indent is None:
            self._print("[" if not self.rows else ", ", ", ".join(map(json.dumps, documents)))
        else:
            texts = (indent(json.dumps(document, indent=2), "  ") for document in documents)
            self._print("[\n" if not self.rows else ",\n", ",\n".join(texts))
        self.rows += len(rows)

    def end(self) -> None:
        if self._as_json:
            self._print("" if self.rows else "[", "\n]\n" if self._indent and self.rows else "]\n")

    @staticmethod
    def _print(*texts: str) -> None:
        print(*texts, sep="", end="", flush=True)


class _Columns:
    """A table's columns: as wide as all pages until then need, or on a narrow terminal as the first one let them be."""

    def __init__(self, heads: Sequence[str], spare: Sequence[str]) -> None:
        self._heads = list(heads)
        self._spare = [self._heads.index(head) for head in spare]
        self._width = terminal_width()
        self._widths = [text_width(head) for head in heads]
        self._dates: set[int] = set()
        self._shown: list[int] | None = None
        self._is_narrow = False

    def page(self, rows: Sequence[Sequence[object]]) -> str:
        """The lines of one page; heads stand above the first, and above one that shows other columns."""
        cells = [["-" if cell in (None, "") else _cell(str(cell)) for cell in row] for row in rows]
        shown, widths = list(range(len(self._heads))), _widths(self._widths, cells)
        if self._width is not None and (self._is_narrow or _total(widths) > self._width):
            cells = [[_short_date(cell) for cell in row] for row in cells]
            shown, widths = self._narrowed(cells, self._width)
        self._widths = widths
        printed = cells if shown == self._shown else [self._heads, *cells]
        self._shown = shown
        lines = ("  ".join(padded(cut(row[n], widths[n]), widths[n]) for n in shown).rstrip() for row in printed)
        return "\n".join(lines)

    def _narrowed(self, cells: Sequence[Sequence[str]], most: int) -> tuple[list[int], list[int]]:
        """The columns that are shown, and the widths of all."""
        self._dates |= {n for row in cells for n, cell in enumerate(row) if _SHORT_DATE.fullmatch(cell)}
        whole = {0, *self._dates}  # half is no use
        before = self._widths if self._is_narrow else list(map(text_width, self._heads))
        wanted = _widths(before, cells)
        if self._is_narrow and self._shown is not None and all(wanted[n] <= before[n] for n in whole):
            return self._shown, before
        self._is_narrow = True
        least = [width if n in whole else min(width, _NARROWEST) for n, width in enumerate(wanted)]
        legible = max(_NARROWEST, min(most // 4, _LEGIBLE))
        readable = [width if n in whole else min(width, legible) for n, width in enumerate(wanted)]
        shown = _that_fit(least, readable, self._spare, most)
        cuttable = [n for n in shown if n not in whole]
        while _total([wanted[n] for n in shown]) > most and cuttable:
            widest = max(cuttable, key=wanted.__getitem__)
            if wanted[widest] <= _NARROWEST:
                break
            wanted[widest] -= 1
        return shown, wanted


def _that_fit(least: Sequence[int], readable: Sequence[int], spare: Sequence[int], most: int) -> list[int]:
    """The columns that there is room for: the spare ones are left out in their order until the others are readable, but
    the first only where they don't fit at all. Those that fit without a later one come back."""
    shown = list(range(len(least)))
    gone: list[int] = []
    for column in spare:
        bearable = least if column == 0 else readable
        if _total([bearable[n] for n in shown]) <= most:
            break
        shown.remove(column)
        gone.append(column)
    for column in reversed(gone):
        if _total([readable[n] for n in (*shown, column)]) <= most:
            shown = sorted((*shown, column))
    return shown


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None for a file or a pipe, which is as wide as a line is long."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def _widths(least: Sequence[int], cells: Sequence[Sequence[str]]) -> list[int]:
    """As wide as the widest cell of each column, and as ``least``."""
    return [max(width, *(text_width(row[n]) for row in cells), 0) for n, width in enumerate(least)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def text_width(text: str) -> int:
    """Columns that a printable text takes on a terminal: names may be Chinese, or have an emoji in them."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me"} or "\u1160" <= char <= "\u11ff":  # rest of a Korean syllable in parts
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def cut(text: str, width: int) -> str:
    """To as many columns, with an ellipsis for what is left out."""
    if text_width(text) <= width:
        return text
    room = width - 1
    for position, char in enumerate(text):
        room -= _char_width(char)
        if room < 0:
            return text[:position] + "\N{HORIZONTAL ELLIPSIS}"
    return text


def padded(text: str, width: int) -> str:
    return text + " " * (width - text_width(text))


def _cell(text: str) -> str:
    """What a table shows of a text: blanks at its ends, and all but the first of several, are escaped, since a name
    must look neither like another one nor like several columns."""
    return _ODD_BLANK.sub(r"\\x20", printable(text))


def _short_date(cell: str) -> str:
    """``2025-03-11T19:12:36Z`` -> ``03-11 19:12``."""
    return f"{cell[5:10]} {cell[11:16]}" if _DATE.fullmatch(cell) else cell


def lines(texts: Iterable[str]) -> str:
    """Texts as lines, each on one, whatever is in it: agents' texts can't make lines of their own."""
    return "\n".join(map(printable, texts))


def pairs(values: Mapping[str, object]) -> str:
    """``name   value``, one a line whatever is in them; what is None is left out."""
    shown = {printable(name): printable(str(value)) for name, value in values.items() if value is not None}
    width = max(map(text_width, shown), default=0)
    return "\n".join(f"{padded(name, width)}  {value}" for name, value in shown.items())


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
