"""What a key takes, in words: one text for messages and for the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import attrs

from wazuh_comms_trio.config.key import Key, key_of


@cache
def types_of(model: type) -> Mapping[str, Any]:
    """The types of a model's fields. Their annotations are text, which takes longer to read than most files do."""
    return get_type_hints(model)


def without_none(kind: Any) -> Any:
    """``X`` of ``X | None``; any other type is itself."""
    rest = [part for part in get_args(kind) if part is not type(None)]
    return rest[0] if len(rest) == 1 and type(None) in get_args(kind) else kind


def has_secrets(kind: Any) -> bool:
    """Whether a value of this type may hold a secret somewhere."""
    kind = without_none(kind)
    if get_origin(kind) is tuple:
        return has_secrets(get_args(kind)[0])
    if not attrs.has(kind):
        return False
    types = types_of(kind)
    return any(key_of(field).secret or has_secrets(types[field.name]) for field in attrs.fields(kind))


def accepted(kind: Any, key: Key, value: object = None) -> str:
    """``a whole number of bytes of at least 1``, ``one of plain, json`` ... ``value`` is what isn't accepted."""
    kind = without_none(kind)
    if kind is bool:
        return "true or false"
    if kind is int:
        return f"a whole number{' of bytes,' if key.unit == 'bytes' else ''}{key.range_text(value)}"
    if kind is float:
        units = {"s": "seconds", "bytes/s": "bytes a second", "%": "percent", "requests/s": "requests a second"}
        unit = f" of {units[key.unit]}," if key.unit in units else ""
        return f"a number{unit}{key.range_text(value)}"
    if kind is str:
        return "text"
    if kind is Path:
        return "a path"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return _accepted_list(get_args(kind)[0], key)
    return "a section" if attrs.has(kind) else "a section of names, each with a text"


def _accepted_list(kind: Any, key: Key) -> str:
    one, many = {str: ("an address", "addresses"), Path: ("a path", "paths")}.get(kind, ("a section", "sections"))
    if not key.scalar_or_list and attrs.has(kind):
        many += f" with {' and '.join(field.name for field in attrs.fields(kind))}"
    return f"{one}, or a list of {many}" if key.scalar_or_list else f"a list of {many}"
