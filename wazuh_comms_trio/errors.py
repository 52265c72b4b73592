"""Every error this project raises, in families on Wazuh's numbered exceptions. Standard library only, so that the
synchronous transport stays light."""

from __future__ import annotations

from wazuh_comms_trio.numbered_errors import TEXTS as TEXTS
from wazuh_comms_trio.numbered_errors import WazuhError as WazuhError
from wazuh_comms_trio.numbered_errors import WazuhException as WazuhException
from wazuh_comms_trio.numbered_errors import WazuhInternalError as WazuhInternalError
from wazuh_comms_trio.numbered_errors import daemon_error as daemon_error

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
    paths. ``reason`` and ``about`` are for operators alone: one word of a small set, for metrics and the log, and the
    agent that it concerns."""

    default_code: int = 500
    default_message: str = ""

    def __init__(
        self, message: str | None = None, *, code: int | None = None, reason: str = "", about: str = ""
    ) -> None:
        number = self.default_code if code is None else code
        self.reason = reason
        self.about = about
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


class Overloaded(BackendUnavailable):
    """503: this node has more to do than it can; ``retry_after`` seconds from now it may be different."""

    default_message = "The service is overloaded"

    def __init__(self, retry_after: int = 5) -> None:
        super().__init__()
        self.retry_after = retry_after


class TooManyRequests(CommsError):
    """429: more than a limit's share, of one agent or of all; ``retry_after`` in seconds."""

    default_code = 429
    default_message = "Too many requests"

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__()
        self.retry_after = retry_after


class DocumentUnreadable(BackendUnavailable):
    """503: one document of a store can't be read, and it alone. ``name`` is its place (``index/_id``), ``why`` the
    reason, ``text`` what stands there, as far as it can be shown.
    """

    def __init__(self, name: str = "a document", why: str = "", text: str = "") -> None:
        super().__init__()
        self.name = name
        self.why = why
        self.text = text
        self.detail: str = f"{name} can't be read: {why}"

    def __str__(self) -> str:
        return self.detail


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
