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

    def __init_subclass__(cls, *, code: int | None = None, message: str | None = None) -> None:
        """``code`` and ``message`` are what an error of this class has where it is given none; else its base's."""
        super().__init_subclass__()
        cls.default_code = cls.default_code if code is None else code
        cls.default_message = cls.default_message if message is None else message

    def __init__(
        self, message: str | None = None, *, code: int | None = None, reason: str = "", about: str = ""
    ) -> None:
        number = self.default_code if code is None else code
        self.reason = reason
        self.about = about
        super().__init__(
            number, message or self.default_message or None, cmd_error=bool(message or self.default_message)
        )


class MalformedRequest(CommsError, code=400, message="Malformed request"):
    """400: a request that is not what the endpoint takes."""


class MalformedBody(CommsError, code=2709):
    """400, code 2709: the events' body as a whole cannot be understood."""


class ClientDisconnected(CommsError, code=2708):
    """400, code 2708: the client left before its request was complete."""


class BodyTooLarge(CommsError, code=413, message="The request body is too large"):
    """413: more bytes than ``limits.body_bytes``."""


class TimeLimitExceeded(CommsError, code=408, message="Request exceeded the processing time limit"):
    """408: the request took longer than its route allows, and not because of a backend."""


class InvalidKey(CommsError, code=401, message="Invalid key"):
    """401. The text is part of the contract with agents: they exit on it."""


class AgentUnknown(CommsError, code=403, message="Agent does not exist"):
    """403. The text is part of the contract with agents: they exit on it."""


class TokenInvalid(CommsError, code=2706):
    """403, code 2706: missing, malformed, foreign, or its agent was removed or rekeyed."""


class TokenExpired(CommsError, code=2707):
    """403, code 2707."""


class FileIsFolder(CommsError, code=2704):
    """400, code 2704."""


class FileNameHasFolders(CommsError, code=2705):
    """400, code 2705."""


class FileMissing(CommsError, code=404, message="File does not exist"):
    """404."""


class AgentExists(CommsError, code=409, message="Agent already exists"):
    """409: an agent with this id is enrolled already."""


class BackendUnavailable(CommsError, code=503, message="The service is temporarily unavailable"):
    """503: what stands behind the daemon cannot take the request now; the same request may succeed later. Nothing was
    promised.
    """

    #: The error's cause is in the log already: whatever passes the error on needn't write another line.
    reported: bool = False
    #: Seconds from now on in which it may be different.
    retry_after: int = 5


class Overloaded(BackendUnavailable, message="The service is overloaded"):
    """503: this node has more to do than it can; ``retry_after`` seconds from now it may be different."""

    def __init__(self, retry_after: int = 5) -> None:
        super().__init__()
        self.retry_after = retry_after


class TooManyRequests(CommsError, code=429, message="Too many requests"):
    """429: more than a limit's share, of one agent or of all; ``retry_after`` in seconds."""

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


class StorageFull(BackendUnavailable, message="The storage is full"):
    """503: no room on the disk or within a quota, until somebody makes some."""

    retry_after = 30


class EngineRefused(CommsError, code=2710):
    """400, code 2710: the engine will never take this body. ``message`` is its reason."""


class EngineTimeout(BackendUnavailable, code=2800, message="The engine did not answer in time"):
    """503, code 2800."""


class EngineSchemeError(BackendUnavailable, code=2801, message="The engine's address has an unsupported scheme"):
    """503, code 2801."""


class EngineSocketError(BackendUnavailable, code=2802, message="The engine's socket cannot be reached"):
    """503, code 2802."""


class EngineRequestError(BackendUnavailable, code=2803, message="The request to the engine failed"):
    """503, code 2803."""
