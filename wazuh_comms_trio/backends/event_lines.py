"""Bodies of stateless events: one JSON value a line, in UTF-8. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

_check_json: Final = msgspec.json.Decoder(msgspec.Raw).decode
_check_lines: Final = msgspec.json.Decoder(msgspec.Raw).decode_lines
_BLANK: Final = b" \t\r"


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def line_fault(line: bytes | bytearray) -> str | None:
    """Why this line (without its ``\\n``) isn't JSON in UTF-8; None when it is, or is blank."""
    if not line:
        return None
    try:
        line.decode()  # msgspec checks the grammar of what it keeps raw, not its encoding
        _check_json(line)
    except UnicodeDecodeError as exc:
        return f"invalid UTF-8 at byte {exc.start + 1}"
    except RecursionError:
        return "nested too deeply"
    except msgspec.DecodeError as exc:
        return None if not line.strip(_BLANK) else _second_opinion(line, exc)
    return None


def _second_opinion(line: bytes | bytearray, first: msgspec.DecodeError) -> str | None:
    """msgspec refuses escaped lone surrogates, which the grammar allows and file names on Windows contain."""
    if b"\\u" not in line:
        return str(first)
    try:
        json.loads(line, parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    except RecursionError:
        return "nested too deeply"
    except ValueError:
        return str(first)
    return None


def _are_sound(block: bytes, lines: Sequence[bytes]) -> bool:
    """Whether each of ``block``'s ``lines`` is JSON without blanks around it: for all at once, in a third of the time.
    What isn't so is looked at line by line."""
    try:
        if not block.isascii():
            block.decode()
        values = _check_lines(block)
    except (UnicodeDecodeError, RecursionError, msgspec.DecodeError):
        return False
    # Values as long as the lines, one for each, are the lines: none has two, and none goes over two.
    return list(map(len, values)) == list(map(len, lines))


class LineChecker:
    """Finds the first line that isn't JSON in a body that comes in pieces, cut anywhere. Holds one line at most."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self._held = bytearray()
        self._number = 0

    def feed(self, piece: bytes) -> None:
        """After a fault nothing is looked at any more."""
        if self.fault is not None:
            return
        end = piece.rfind(b"\n")
        if end < 0:
            self._held += piece
            return
        block = piece[:end]
        if self._held:
            block = bytes(self._held) + block
            self._held.clear()
        self._held += piece[end + 1 :]
        lines = block.split(b"\n")
        if _are_sound(block, lines):
            self._number += len(lines)
            return
        for line in lines:
            self._check(line)

    def _check(self, line: bytes | bytearray) -> None:
        self._number += 1
        if self.fault is None:
            fault = line_fault(line)
            if fault is not None:
                self.fault = f"line {self._number}: {fault}"

    def finish(self) -> str | None:
        """Ends the body, with or without a last newline. The fault as ``line 3: <reason>``, None when there is none."""
        if self._held:
            self._check(self._held)
            self._held.clear()
        return self.fault


def find_bad_line(body: bytes) -> str | None:
    """Finds, as ``LineChecker`` does, the first line of a whole body that isn't JSON."""
    checker = LineChecker()
    checker.feed(body)
    return checker.finish()


def lines_of(body: bytes) -> Iterator[bytes]:
    """The lines of ``body`` without their ends; the last one needn't have one."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        yield body[start:end].removesuffix(b"\r")
        start = end + 1
