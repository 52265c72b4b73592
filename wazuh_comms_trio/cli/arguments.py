"""Words of a command line -> values. Each raises ``ArgumentTypeError`` with what is accepted: exit status 2."""

from __future__ import annotations

import json
import math
import re
import time
import unicodedata
from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import Any, Final

from wazuh_comms_trio.foundation.timestamps import from_iso

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_KEY: Final = re.compile(r"[A-Za-z0-9]{32}")
# A group's file is asked for by name: what a file name may be in a request's target.
_GROUP: Final = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_NAME: Final = 128
_LONGEST_TIMEOUT: Final = 31_536_000


def agent_uuid(word: str) -> str:
    """In lower case, as agents are compared."""
    if not _UUID.fullmatch(word):
        raise ArgumentTypeError(f"{word!r} isn't a uuid (0194857f-39b5-7bfb-a7bc-c5c6835f03d1)")
    return word.lower()


def is_uuid(word: str) -> bool:
    return _UUID.fullmatch(word) is not None


def agent_reference(word: str) -> str:
    """A uuid, or what may be an agent's name: which agent that is, ``agents.names`` says."""
    return word if is_uuid(word) else text(word)


def agent_key(word: str) -> str:
    if not _KEY.fullmatch(word):
        raise ArgumentTypeError("a key is exactly 32 letters and digits (a-z, A-Z, 0-9)")  # never shown
    return word


def text(word: str) -> str:
    """Something to read: not blank, no control characters."""
    if not word.strip():
        raise ArgumentTypeError("may not be blank")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in word):
        raise ArgumentTypeError(f"{word!r} has a character that isn't text")
    return word


def agent_name(word: str) -> str:
    if len(text(word)) > _LONGEST_NAME:
        raise ArgumentTypeError(f"a name has at most {_LONGEST_NAME} characters, not {len(word)}")
    return word


def group(word: str) -> str:
    if not _GROUP.fullmatch(word):
        raise ArgumentTypeError(f"{word!r} isn't a group's name: letters, digits, '.', '_', '+' and '-'; at most 128")
    return word


def own_group(word: str) -> str:
    """A group that an agent can be put into."""
    if group(word) == "all":
        raise ArgumentTypeError("every agent is in the group all anyway")
    return word


def seconds(word: str) -> int:
    """``90``, or as a ``duration``."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", word)
    if found is None or not 0 < (length := int(found[1]) * _UNITS[found[2] or "s"]) <= _LONGEST_TIMEOUT:
        raise ArgumentTypeError(f"{word!r} isn't a whole number of seconds greater than 0")
    return length


def count(word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", word) or int(word) < 1:
        raise ArgumentTypeError(f"{word!r} isn't a whole number greater than 0")
    return int(word)


def duration(word: str) -> float:
    """``90s``, ``15m``, ``1h``, ``7d`` -> seconds."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", word)
    if found is None or not 0 < (length := int(found[1]) * _UNITS[found[2]]) <= 100 * _LONGEST_TIMEOUT:
        raise ArgumentTypeError(f"{word!r} isn't a time: a number and s, m, h or d (90s, 15m, 1h, 7d)")
    return float(length)


def rate(word: str) -> float:
    """``50/s``, ``100/m``, ``1000/h`` -> in a second."""
    found = re.fullmatch(r"([0-9]{1,9})/([smh])", word)
    if found is None or int(found[1]) < 1:
        raise ArgumentTypeError(f"{word!r} isn't a rate: so many agents a second, minute or hour (50/s, 100/m, 500/h)")
    return int(found[1]) / _UNITS[found[2]]


def moment(word: str) -> float:
    """A time ago (``1h``), or a date as ISO 8601 writes it, UTC where it names no zone -> epoch seconds."""
    if re.fullmatch(r"[0-9]+[smhd]", word):
        return time.time() - duration(word)
    found = from_iso(word)
    if found is None:
        raise ArgumentTypeError(f"{word!r} isn't a time ago (15m, 1h, 7d), nor a date (2025-03-11T19:12:36Z)")
    return found


def named_value(word: str) -> tuple[str, Any]:
    """``NAME=VALUE``. The value is JSON if it parses as such, else text."""
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise ArgumentTypeError(f"{word!r} isn't NAME=VALUE")
    text(name)
    return name, json_or_text(value)


def json_or_text(word: str) -> Any:
    """Numbers that JSON can't carry on (``NaN``, ``1e999``) are text, like everything else that isn't JSON."""
    from wazuh_comms_trio.services.strict_json import DEEPEST, is_too_deep  # msgspec, which no other argument needs

    if any(unicodedata.category(char) == "Cs" for char in word):
        raise ArgumentTypeError("isn't UTF-8")
    try:
        value: Any = json.loads(word, parse_constant=_refuse, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # an escaped half of a surrogate pair is no text
    except (ValueError, RecursionError):
        return word
    if is_too_deep(value):
        raise ArgumentTypeError(f"is nested deeper than {DEEPEST} levels")
    return value


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Raises for a name that stands twice."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ArgumentTypeError(f"argument --arg: {name!r} stands more than once")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(number)
    return value
