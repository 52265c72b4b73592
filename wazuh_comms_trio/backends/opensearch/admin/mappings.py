"""What is wrong with an existing index's mapping or settings, for what is done with it. Pure; a sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Mappings = Mapping[str, Any]

_DATES: Final = ("date", "date_nanos")


def field_of(mappings: Mappings, name: str) -> Mapping[str, Any] | None:
    """The mapping of ``a.b.c``, or None where there is none yet."""
    current: Mapping[str, Any] = mappings
    for part in name.split("."):
        found = current.get("properties", {}).get(part)
        if not isinstance(found, Mapping):
            return None
        current = found
    return current


def is_exact(field: Mapping[str, Any]) -> bool:
    """Whether values can be found exactly: a keyword, or a text with one below."""
    below = field.get("fields", {}).get("keyword", {})
    return field.get("type") in ("keyword", "constant_keyword", "wildcard") or below.get("type") == "keyword"


def _inexact(mappings: Mappings, names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        field = field_of(mappings, name)
        if field is not None and not is_exact(field):
            found.append(f"{name} is a {field.get('type', 'object')}, and values can't be found exactly")
    return found


def _no_dates(mappings: Mappings, names: Sequence[str], also: Sequence[str] = ()) -> list[str]:
    found = []
    for name in names:
        field = field_of(mappings, name)
        if field is not None and field.get("type") not in (*_DATES, *also):
            found.append(f"{name} is a {field.get('type', 'object')}, not a date")
    return found


def agents_problems(mappings: Mappings) -> list[str]:
    return [
        *_inexact(mappings, ["agent.groups", "agent.status"]),
        *_no_dates(mappings, ["agent.last_login"], also=("long", "double", "float")),
    ]


def commands_problems(mappings: Mappings) -> list[str]:
    problems = _inexact(mappings, ["command.status", "command.target.id", "command.target.type"])
    problems += _no_dates(mappings, ["@timestamp"], also=("long",))
    if mappings.get("dynamic", True) in ("strict", "strict_allow_templates") and field_of(mappings, "delivery") is None:
        problems.append("new fields are refused, and `delivery` (who delivers a command) isn't mapped")
    answer_by = field_of(mappings, "delivery.answer_by")
    if answer_by is not None and answer_by.get("type") not in ("long", *_DATES):
        problems.append(f"delivery.answer_by is a {answer_by.get('type', 'object')}, not a long")
    return problems


def settings_problems(settings: Mapping[str, Any]) -> list[str]:
    """``settings`` flat, as ``index.blocks.write``."""
    return [
        f"{name.removeprefix('index.')} is set"
        for name, value in settings.items()
        if name.startswith("index.blocks.") and str(value).lower() == "true" and not name.endswith(".metadata")
    ]
