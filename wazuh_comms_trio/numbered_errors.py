"""The base of every error of this project: Wazuh's numbered exceptions, as programs know them from the framework.

Standard library only, so that the synchronous transport stays light. Numbers, texts, classes and what the classes do
are facts from the framework that programs already rely on; the numbers 27xx and 28xx are what agents already get.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from copy import copy
from types import MappingProxyType
from typing import Any, Final, Self

_RESTART_REMEDIATION: Final = "Restart Wazuh to restore the sockets"

#: number -> text, or (text, remediation)
TEXTS: Final[Mapping[int, str | tuple[str, str]]] = {
    1010: "Unable to connect to queue",
    1011: "Error communicating with queue",
    1012: "Invalid message to queue",
    1013: ("Unable to connect with socket", _RESTART_REMEDIATION),
    1014: ("Error communicating with socket", _RESTART_REMEDIATION),
    1105: "Type must be bytes",
    1121: ("Error connecting with socket", "Ensure that the module is running and properly configured"),
    1901: "The control socket is missing",
    1902: "Unable to connect to the control socket",
    2012: "wazuh-db's HTTP socket answered with an error",
    2013: "The HTTP request failed",
    2019: "The engine answered with an error",
    2020: "The engine did not answer in time",
    2021: "Unable to connect to the engine",
    2022: "The engine's answer is no JSON of the expected form",
    2024: "The vulnerability detector answered with an error",
    2025: "The vulnerability detector did not answer in time",
    2026: "Unable to connect to the vulnerability detector",
    2027: "The vulnerability detector's answer is no JSON of the expected form",
    2704: "The file name is a folder",
    2705: "The file name contains folders",
    2706: "Invalid authentication token",
    2707: "Authentication token has expired",
    2708: "Client disconnected while sending the request",
    2709: "Invalid request body",
    2710: "The engine refused the request",
    2800: "The engine did not answer in time",
    2801: "The engine's address has an unsupported scheme",
    2802: "The engine's socket cannot be reached",
    2803: "The request to the engine failed",
}


class _Root(Exception):
    """Stands between ``Exception`` and ours, so that ours may be given a further base (transport/framework_errors.py):
    Python allows that only where the base before was a class written in Python."""


class WazuhException(_Root):
    """An error with Wazuh's number.

    ``code`` is the number, ``message`` the text, ``remediation`` what to do about it (or None). A plain string as
    ``extra_message`` is appended to the number's text (``<text>: <extra>``); a mapping fills the text's placeholders.
    With ``cmd_error=True`` (an error that a daemon answered) ``extra_message`` *is* the message, and there is no
    remediation.

    Two are equal when they are of one class and were made alike; ``a | b`` is ``a`` with the ``dapi_errors`` (and
    ``ids``) of both.
    """

    # Defaults in the class, so that what a further base has under these names is never met.
    code: int = 0
    message: str = ""
    remediation: str | None = None
    cmd_error: bool = False
    dapi_errors: Mapping[str, Any] = MappingProxyType({})
    title: str = "WazuhException"
    type: str = "about:blank"
    _extra_message: str | Mapping[str, Any] | None = None
    _extra_remediation: str | Mapping[str, Any] | None = None

    def __init__(
        self,
        code: int,
        extra_message: str | Mapping[str, Any] | None = None,
        extra_remediation: str | Mapping[str, Any] | None = None,
        cmd_error: bool = False,
        dapi_errors: Mapping[str, Any] | None = None,
        title: str | None = None,
        type: str | None = None,
    ) -> None:
        entry = TEXTS.get(code, "")
        text, remediation = (entry, None) if isinstance(entry, str) else entry
        if cmd_error:
            text, remediation = str(extra_message) if extra_message is not None else text, None
        elif isinstance(extra_message, Mapping):
            text = text.format(**extra_message)
        elif extra_message:
            text = f"{text}: {extra_message}" if text else extra_message
        if isinstance(extra_remediation, Mapping):
            remediation = remediation.format(**extra_remediation) if remediation else None
        elif extra_remediation:
            remediation = f"{remediation}: {extra_remediation}" if remediation else extra_remediation
        self.code = code
        self.message = text
        self.remediation = remediation
        self.cmd_error = cmd_error
        self.dapi_errors = dapi_errors if dapi_errors is not None else {}
        self._extra_message = extra_message
        self._extra_remediation = extra_remediation
        if title is not None:
            self.title = title
        if type is not None:
            self.type = type
        Exception.__init__(self, code, text)

    def __str__(self) -> str:
        return f"Error {self.code} - {self.message}"

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.code}, {self.message!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WazuhException):
            return NotImplemented
        return self.__class__ is other.__class__ and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.__class__, self.code, self.message))

    def __or__(self, other: object) -> Self:
        if not isinstance(other, WazuhException):
            return NotImplemented
        joined = copy(self)
        joined.dapi_errors = {**self.dapi_errors, **other.dapi_errors}
        return joined

    def to_dict(self) -> dict[str, Any]:
        """What the constructor was given, by its arguments' names, for :meth:`from_dict`."""
        return {
            "type": self.type,
            "title": self.title,
            "code": self.code,
            "extra_message": self._extra_message,
            "extra_remediation": self._extra_remediation,
            "cmd_error": self.cmd_error,
            "dapi_errors": dict(self.dapi_errors),
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """The error that :meth:`to_dict` was called on."""
        error = cls.__new__(cls)
        _initialize(error, given)
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with the finished text, and the number's text would be there twice.
        return _restore, (self.__class__, self.args, self.__dict__.copy())


def _initialize(error: WazuhException, given: Mapping[str, Any]) -> None:
    """As the numbered classes themselves do: some that are more special take other arguments."""
    if isinstance(error, _WithIds):
        _WithIds.__init__(error, **given)
    else:
        WazuhException.__init__(error, **given)


def _restore(kind: type[WazuhException], args: tuple[Any, ...], state: dict[str, Any]) -> WazuhException:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class _WithIds(WazuhException):
    """An error about several things; ``ids`` says which."""

    ids: Set[Any] = frozenset()

    def __init__(
        self,
        code: int,
        extra_message: str | Mapping[str, Any] | None = None,
        extra_remediation: str | Mapping[str, Any] | None = None,
        cmd_error: bool = False,
        dapi_errors: Mapping[str, Any] | None = None,
        ids: Iterable[Any] | None = None,
        title: str | None = None,
        type: str | None = None,
    ) -> None:
        WazuhException.__init__(self, code, extra_message, extra_remediation, cmd_error, dapi_errors, title, type)
        self.ids = set(ids or ())

    def __or__(self, other: object) -> Self:
        joined = WazuhException.__or__(self, other)
        if isinstance(other, _WithIds):
            joined.ids = self.ids | other.ids
        return joined

    def to_dict(self) -> dict[str, Any]:
        """What the constructor was given, by its arguments' names, for :meth:`from_dict`."""
        return {**WazuhException.to_dict(self), "ids": sorted(self.ids, key=str)}


class WazuhError(_WithIds):
    """The caller's to deal with: a request that cannot be served as it is. ``ids``: what it is about."""

    title: str = "Bad Request"


class WazuhInternalError(_WithIds):
    """Something that this program relies on does not work. ``ids``: what it is about."""

    title: str = "Wazuh Internal Error"


#: A daemon's own number -> the one under which this program's callers know it, see
#: ``transport.use_framework_errors``.
daemon_numbers: dict[int, int] = {}


def daemon_error(code: int, message: str) -> WazuhException:
    """The error that a daemon answered, with its own number and text."""
    number = daemon_numbers.get(code)
    if number is not None:
        return WazuhError(number, message, cmd_error=True)
    return WazuhException(code, message, cmd_error=True)
