"""Every error this project raises: Wazuh's numbered exceptions, and the families on them.

Standard library only, so that the synchronous transport stays light. Numbers, texts and classes of the transport's
errors are facts from the framework that programs already rely on; those of the REST API (27xx, 28xx) are what agents
already get.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

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


class WazuhException(Exception):
    """An error with Wazuh's number.

    ``code`` is the number, ``message`` the text, ``remediation`` what to do about it (or None). A plain string as
    ``extra_message`` is appended to the number's text (``<text>: <extra>``); a mapping fills the text's placeholders.
    With ``cmd_error=True`` (an error that a daemon answered) ``extra_message`` *is* the message.
    """

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
            text = str(extra_message) if extra_message is not None else text
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
        self.dapi_errors: Mapping[str, Any] = dapi_errors if dapi_errors is not None else {}
        self.title = title
        self.type = type
        super().__init__(code, text)

    def __str__(self) -> str:
        return f"Error {self.code} - {self.message}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code}, {self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with the finished text, and the number's text would be there twice.
        return _restore, (type(self), self.args, self.__dict__.copy())


def _restore(kind: type[WazuhException], args: tuple[Any, ...], state: dict[str, Any]) -> WazuhException:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class WazuhError(WazuhException):
    """The caller's to deal with: a request that cannot be served as it is."""


class WazuhInternalError(WazuhException):
    """Something that this program relies on does not work."""


# --- the transport's errors
# ----------------------------------------------------------------------------------------------------
#
# Where programs written against the framework and those written against the published description expect different
# classes, what is raised is a subclass of both. What needs trio (errors that are trio's Closed or Broken too) is in
# transport/errors.py.


class FrameError(WazuhError):
    """1014: what the peer sent is no sequence of frames. The place where the next one begins is lost, so is the
    connection.
    """


class TruncatedFrame(FrameError):
    """1014: the peer closed the connection inside a frame."""


class EmptyFrame(FrameError):
    """1014: the peer announced a frame of length 0, which no daemon sends."""


class FrameTooLarge(FrameError):
    """1014: the peer announced a frame above the receiving limit."""


class PeerClosed(WazuhError):
    """1014: the peer closed the connection between two frames, where an answer was waited for."""


class AnswerInvalid(WazuhError):
    """1014: a whole frame came, but not what was asked for: no JSON, not the daemon's form, not the wanted type."""


class DaemonRefusal(AnswerInvalid):
    """1014: a daemon of 5.0 refused with a word where others have a number. ``word`` is it, ``reason`` what it said
    besides (None: nothing)."""

    def __init__(self, word: str, reason: str | None = None) -> None:
        super().__init__(1014, f"{word}: {reason}" if reason else word, cmd_error=True)
        self.word = word
        self.reason = reason


class NotInRelease(WazuhInternalError):
    """1012 (1013 for a socket): the release that the server runs has no such thing. Nothing was sent."""


class NotSynchronized(WazuhError):
    """1014: wazuh-db has no inventory of this agent, since the agent never sent it any (``NOT_SYNCED``)."""


class AnswerCut(AnswerInvalid):
    """1014: wazuh-db cut its answer at 65536 bytes. Ask for less."""


class SocketTimeout(WazuhError, TimeoutError):
    """1014: the ``timeout`` of a synchronous class ran out."""


class SendSyncError(WazuhInternalError, WazuhError):
    """1014: anything that went wrong in ``wazuh_sendsync`` and has no number of its own."""


class BacklogFull(WazuhInternalError):
    """1013: the daemon's queue of new connections is full (``EAGAIN``). Nothing was sent; try again a little later."""


class PayloadTooLarge(WazuhInternalError):
    """1012: a stream payload above the sending limit. Refused before its first byte went out."""


class QueueTimeout(WazuhInternalError, TimeoutError):
    """1011: no room in a datagram queue within the ``timeout``."""


class MessageInvalid(WazuhInternalError):
    """1012: a message that its reader would refuse, drop, misread, or be harmed by; ``message`` says where and why.
    Nothing was sent.
    """


class EventTooLarge(MessageInvalid, WazuhError):
    """1012: an event above what analysisd reads. Refused, since analysisd would silently cut it."""


# --- the REST API's errors
# -----------------------------------------------------------------------------------------------------
#
# Raised by services and backends, turned into replies in one place: api/problems.py. ``code`` is Wazuh's number where
# there is one, else the HTTP status; ``message`` is what the agent is told.


class CommsError(WazuhError):
    """The base of what a request to the daemon can end with. ``message`` is sent to the client: no secrets, no
    paths."""

    default_code: int = 500
    default_message: str = ""

    def __init__(self, message: str | None = None, *, code: int | None = None) -> None:
        number = self.default_code if code is None else code
        super().__init__(
            number, message or self.default_message or None, cmd_error=bool(message or self.default_message)
        )


class MalformedRequest(CommsError):
    """400: a request that is not what the endpoint takes."""

    default_code = 400
    default_message = "Malformed request"


class MalformedBody(CommsError):
    """400, code 2709: the events' body as a whole cannot be understood."""

    default_code = 2709


class ClientDisconnected(CommsError):
    """400, code 2708: the client left before its request was complete."""

    default_code = 2708


class BodyTooLarge(CommsError):
    """413: more bytes than ``limits.body_bytes``."""

    default_code = 413
    default_message = "The request body is too large"


class TimeLimitExceeded(CommsError):
    """408: the request took longer than its route allows, and not because of a backend."""

    default_code = 408
    default_message = "Request exceeded the processing time limit"


class InvalidKey(CommsError):
    """401. The text is part of the contract with agents: they exit on it."""

    default_code = 401
    default_message = "Invalid key"


class AgentUnknown(CommsError):
    """403. The text is part of the contract with agents: they exit on it."""

    default_code = 403
    default_message = "Agent does not exist"


class TokenInvalid(CommsError):
    """403, code 2706: missing, malformed, foreign, or its agent was removed or rekeyed."""

    default_code = 2706


class TokenExpired(CommsError):
    """403, code 2707."""

    default_code = 2707


class FileIsFolder(CommsError):
    """400, code 2704."""

    default_code = 2704


class FileNameHasFolders(CommsError):
    """400, code 2705."""

    default_code = 2705


class FileMissing(CommsError):
    """404."""

    default_code = 404
    default_message = "File does not exist"


class AgentExists(CommsError):
    """409: an agent with this id is enrolled already."""

    default_code = 409
    default_message = "Agent already exists"


class BackendUnavailable(CommsError):
    """503: what stands behind the daemon cannot take the request now; the same request may succeed later. Nothing was
    promised.
    """

    default_code = 503
    default_message = "The service is temporarily unavailable"

    #: Its cause is in the log already: who passes it on needn't write another line.
    reported: bool = False


class StorageFull(BackendUnavailable):
    """503: no room on the disk or within a quota."""

    default_message = "The storage is full"


class EngineRefused(CommsError):
    """400, code 2710: the engine will never take this body. ``message`` is its reason."""

    default_code = 2710


class EngineTimeout(BackendUnavailable):
    """503, code 2800."""

    default_code = 2800
    default_message = "The engine did not answer in time"


class EngineSchemeError(BackendUnavailable):
    """503, code 2801."""

    default_code = 2801
    default_message = "The engine's address has an unsupported scheme"


class EngineSocketError(BackendUnavailable):
    """503, code 2802."""

    default_code = 2802
    default_message = "The engine's socket cannot be reached"


class EngineRequestError(BackendUnavailable):
    """503, code 2803."""

    default_code = 2803
    default_message = "The request to the engine failed"
