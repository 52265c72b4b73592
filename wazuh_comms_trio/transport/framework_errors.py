"""Errors for programs that keep the framework's own exception classes: ours become subclasses of theirs.

    from wazuh.core import exception

    use_framework_errors(exception, numbers=FRAMEWORK_NUMBERS)

From then on ``except exception.WazuhException`` catches what this library raises, ``WazuhError`` and
``WazuhInternalError`` likewise, and an error that a daemon answers has the number that the framework gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, Final

from wazuh_comms_trio import numbered_errors as errors

#: What the framework makes of authd's numbers: a name, an address and an id that another agent has (SOCKETS.md, 6).
FRAMEWORK_NUMBERS: Final[Mapping[int, int]] = MappingProxyType({9008: 1705, 9007: 1706, 9012: 1708})

_OURS: Final[tuple[type[errors.WazuhException], ...]] = (
    errors.WazuhException,
    errors.WazuhError,
    errors.WazuhInternalError,
)
_PUBLISHED_BASES: Final = {kind: kind.__bases__ for kind in _OURS}


def use_framework_errors(
    classes: ModuleType | Iterable[type[Exception]] | None, *, numbers: Mapping[int, int] | None = None
) -> None:
    """Make our exception classes subclasses of those in ``classes``, for the whole process: a module, or classes, with
    the names ``WazuhException``, ``WazuhError`` and ``WazuhInternalError``; those that aren't there stay as they are.
    None undoes it.

    Ours keep their own attributes, texts and constructors; the constructors of the others are not called. ``numbers``
    maps a daemon's number to the one that the program expects; such an error is a ``WazuhError`` with the daemon's
    text. ``TypeError`` for what are no exception classes, or can't be bases of ours, ``ValueError`` when no name fits;
    nothing is changed then.
    """
    found = {} if classes is None else _named(classes)
    if classes is not None and not found:
        raise ValueError(f"none of {', '.join(kind.__name__ for kind in _OURS)} is among the classes given")
    before = {kind: kind.__bases__ for kind in _OURS}
    try:
        for kind in _OURS:
            kind.__bases__ = _PUBLISHED_BASES[kind]
        for kind in _OURS:
            if (other := found.get(kind.__name__)) is not None:
                kind.__bases__ = (*_PUBLISHED_BASES[kind], other)
    except TypeError:
        for kind in _OURS:
            kind.__bases__ = before[kind]
        raise
    errors.daemon_numbers.clear()
    errors.daemon_numbers.update(numbers or {})


def _named(classes: Any) -> dict[str, type[Exception]]:
    found: dict[str, Any] = {}
    if isinstance(classes, ModuleType):
        found.update(vars(classes))
    else:
        found.update((getattr(one, "__name__", ""), one) for one in classes)
    wanted = {}
    for kind in _OURS:
        other = found.get(kind.__name__)
        if other is None:
            continue
        if not isinstance(other, type) or not issubclass(other, Exception) or issubclass(other, errors.WazuhException):
            raise TypeError(f"{other!r} is no exception class of another program")
        wanted[kind.__name__] = other
    return wanted
