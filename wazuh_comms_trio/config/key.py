"""What a model's field says about itself beyond its type: its meaning, what is accepted. Kept in the attrs metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from attrs import Attribute, frozen

#: Durations above this are a mistake, not a wish; it also keeps them within what clocks and socket options take.
LONGEST: Final = 31_536_000
#: Sizes in bytes, and any other number without a limit of its own, fit a signed 64-bit number: what is calculated with
#: them, with floats too, ends in numbers.
LARGEST: Final = 2**63 - 1

_METADATA_KEY: Final = "wazuh_comms_trio.key"


@frozen
class Key:
    """``help`` is the sentence of docs/configuration.md. ``minimum`` and ``maximum`` are included, ``above`` is not.
    ``secret`` values are never shown. ``scalar_or_list``: one value is taken for a list of one, ``first_of_list``: a
    list of one for its value. ``check`` looks at the structured value and returns what is accepted instead, or None."""

    help: str
    unit: str = ""
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    secret: bool = False
    scalar_or_list: bool = False
    first_of_list: bool = False
    non_empty: bool = False
    check: Callable[[Any], str | None] | None = None

    def accepts_number(self, value: float) -> bool:
        return not (
            (self.minimum is not None and value < self.minimum)
            or (self.above is not None and value <= self.above)
            or value > self._largest
        )

    @property
    def _largest(self) -> float:
        return LARGEST if self.maximum is None else self.maximum

    def range_text(self, value: object = None) -> str:
        """``from 0 to 65535``, ``of at least 1``, ``greater than 0``; the outer limits go unnamed, but to a ``value``
        that is beyond them."""
        beyond = isinstance(value, (int, float)) and value > self._largest
        maximum = self._largest if beyond or self._largest not in (LONGEST, LARGEST) else None
        most = "" if maximum is None else str(maximum) if maximum in (LONGEST, LARGEST) else f"{maximum:g}"
        if self.minimum is not None and most:
            return f" from {self.minimum:g} to {most}"
        if self.minimum is not None:
            return f" of at least {self.minimum:g}"
        if self.above is not None:
            return f" greater than {self.above:g}" + (f" and at most {most}" if most else "")
        return f" of at most {most}" if most else ""


def key(help: str, **more: Any) -> dict[str, Key]:
    """The ``metadata=`` of a model's field."""
    return {_METADATA_KEY: Key(help, **more)}


def seconds(help: str, *, zero: bool = False) -> dict[str, Key]:
    """A duration; with ``zero``, 0 means something too."""
    return key(help, unit="s", maximum=LONGEST, **({"minimum": 0} if zero else {"above": 0}))


def days(help: str, *, zero: bool = False) -> dict[str, Key]:
    """A long time, as a whole number of days; with ``zero``, 0 means something too."""
    return key(help, unit="days", minimum=0 if zero else 1, maximum=36_500)


def size(help: str, *, minimum: int = 1) -> dict[str, Key]:
    return key(help, unit="bytes", minimum=minimum, maximum=LARGEST)


def key_of(attribute: Attribute[Any]) -> Key:
    """What a field says about itself; a field without anything is an ordinary one."""
    metadata: Mapping[str, Key] = attribute.metadata
    return metadata.get(_METADATA_KEY) or Key("")


#: ``sun_path`` has 108 bytes, the last one a NUL.
_LONGEST_SOCKET_PATH = 107


def socket_path(path: Path) -> str | None:
    """What a Unix socket's path must be, in words; None when ``path`` is."""
    return f"a path of at most {_LONGEST_SOCKET_PATH} bytes" if len(bytes(path)) > _LONGEST_SOCKET_PATH else None


def networks(names: Iterable[str]) -> str | None:
    """What each of ``names`` must be, in words; None when all are."""
    try:
        for name in names:
            ip_network(name)
    except ValueError:
        return "addresses (10.0.0.5) and networks without bits of a host (10.0.0.0/24)"
    return None
