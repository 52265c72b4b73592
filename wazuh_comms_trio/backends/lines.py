"""Bodies of stateless events: one JSON value a line. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

_check_json: Final = msgspec.json.Decoder(msgspec.Raw).decode


def lines_of(body: bytes | bytearray | memoryview) -> Iterator[bytes]:
    """The lines of ``body`` without their ends (``\\n`` or ``\\r\\n``); the last one needn't have one."""
    whole = bytes(body)
    start = 0
    while start < len(whole):
        end = whole.find(b"\n", start)
        end = len(whole) if end < 0 else end
        yield whole[start:end].removesuffix(b"\r")
        start = end + 1


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def line_fault(line: bytes) -> str | None:
    """Why this line isn't JSON in UTF-8, None when it is or is blank."""
    try:
        line.decode()
        _check_json(line)
    except UnicodeDecodeError as exc:
        return f"invalid UTF-8 at byte {exc.start + 1}"
    except RecursionError:
        return "nested too deeply"
    except msgspec.DecodeError as exc:
        if not line.strip(b" \t\r"):
            return None
        return _second_opinion(line, exc)
    return None


def _second_opinion(line: bytes, first: msgspec.DecodeError) -> str | None:
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


def find_bad_line(body: bytes | bytearray | memoryview) -> str | None:
    """The first line that the engine can never take, as ``line 3: <reason>``; None when all can be taken."""
    for number, line in enumerate(lines_of(body), 1):
        fault = line_fault(line)
        if fault is not None:
            return f"line {number}: {fault}"
    return None
