"""The two orders in which programs give ``receive`` its arguments, told apart by the type of the first one.

===================================  ==============================================================================
until 4.14.1, and as published       ``receive(header_size, header_format)``: ``receive(4)``, ``receive(None)``
from 4.14.2, and the plain sockets   ``receive(header_format, header_size, raw)``: ``receive("<I", 4)``
===================================  ==============================================================================

Keywords mean the same in both.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from wazuh_comms_trio.errors import WazuhError
from wazuh_comms_trio.wire.framing import HEADER_FORMAT

HEADER_SIZE: Final = 4

_ORDERS: Final = "receive(header_size, header_format) or receive(header_format, header_size)"


class Shape(NamedTuple):
    """The frames that a call asks for; a format or a size of None means bytes as they come."""

    header_format: str | None
    header_size: int | None
    raw: bool


def receive_shape(order: tuple[Any, ...], named: dict[str, Any]) -> Shape:
    """From positional and named arguments. ``WazuhError`` 1014 naming both orders where they are mixed up,
    ``TypeError`` for what no call has."""
    values: dict[str, Any] = {"header_format": HEADER_FORMAT, "header_size": HEADER_SIZE, "raw": False}
    if unknown := named.keys() - values.keys():
        raise TypeError(f"receive() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    if len(order) > len(values):
        raise TypeError(f"receive() takes at most 3 arguments, not {len(order)}")
    for name, value in zip(_names(order), order, strict=False):
        if name in named:
            raise TypeError(f"receive() got multiple values for argument {name!r}")
        values[name] = value
    values.update(named)
    header_format, header_size = values["header_format"], values["header_size"]
    if not isinstance(header_format, str | None) or not _is_size(header_size):
        raise _mixed(order or tuple(named.values()))
    return Shape(header_format, header_size, bool(values["raw"]))


def _names(order: tuple[Any, ...]) -> tuple[str, str, str]:
    """Which arguments the positions are. ``None`` in front says nothing, so the second decides."""
    first, second = (*order, None, None)[:2]
    if isinstance(first, str) or (first is None and isinstance(second, int)):
        return ("header_format", "header_size", "raw")
    return ("header_size", "header_format", "raw")


def _is_size(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _mixed(given: tuple[Any, ...]) -> WazuhError:
    shown = ", ".join(repr(value)[:30] for value in given)
    return WazuhError(1014, f"receive({shown}) is neither order: {_ORDERS}, a format being text and a size a number")
