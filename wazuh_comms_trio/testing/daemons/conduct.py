"""How a fake daemon treats its connections: what the real one does always, and the oddities a test switches on. Pure
data. Limits, time-outs, threads and which daemons answer once and close are DAEMONS.md's ("Stream framing", its list
and its table); the send timeout after streamed rows is in its "Replies", wazuh-db.

A ``Conduct`` is the daemon as it is when all goes well; ``Oddities`` is what goes wrong. Both are frozen: change one
with ``attrs.evolve``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, TypeAlias

from attrs import frozen

HEADER: Final = struct.Struct("<I")

#: What a classic daemon reads at most, in payload bytes; wazuh-db cuts its answers there too.
REQUEST_LIMIT: Final = 65536


class Act(Enum):
    """An answer that is no bytes."""

    SILENCE = "silence"  #: no answer, the connection stays open
    CLOSE = "close"  #: no answer, the connection is closed
    CRASH = "crash"  #: the daemon is gone: every connection is closed, new ones are refused


@frozen
class Raw:
    """An answer of bytes that are sent as they are, without a header: as no healthy daemon gives it."""

    data: bytes


@frozen
class Frames:
    """Several frames as the answer to one request. ``streamed`` marks wazuh-db's row streaming (see
    ``Conduct.streamed_send_timeout``)."""

    payloads: Sequence[bytes | str]
    streamed: bool = False


#: What a request is answered with: text or bytes are one frame, a mapping or a list is one frame of JSON.
Answer: TypeAlias = "bytes | str | Mapping[str, Any] | list[Any] | Frames | Raw | Act"

#: A callback gets the request's payload, without its trailing NUL if it had one, and returns the answer; it may be
#: async.
AnswerCallback: TypeAlias = Callable[[bytes], "Answer | Awaitable[Answer]"]

#: A script: the answers in the order of the requests, over all connections.
AnswerScript: TypeAlias = Sequence["Answer"]


@frozen(kw_only=True)
class Conduct:
    """What a daemon does with every connection.

    * ``one_shot``: it answers one request, then closes.
    * ``threads``: so many requests at a time; ``thread_per_connection``: a connection holds its thread from accept to
      close, so that a silent client delays the others (authd).
    * ``receive_timeout``: seconds without a byte of the request after which it closes; None for ever.
    * ``request_limit``: payload bytes of a request; above it ``oversized_wedges`` says whether the thread is out of
      service for good, without an answer or a close (wazuh-db), or the connection is closed (the others).
    * ``answer_limit``: payload bytes where an answer is cut, None: never.
    * ``streamed_send_timeout``: seconds a send may take on a connection that got a streamed answer; then the frame is
      cut and the next one starts inside the announced length.
    """

    one_shot: bool = False
    threads: int = 8
    thread_per_connection: bool = False
    receive_timeout: float | None = None
    request_limit: int = REQUEST_LIMIT
    oversized_wedges: bool = False
    answer_limit: int | None = None
    streamed_send_timeout: float | None = None


#: The classic daemons of a 4.x server, by the registry's names.
CONDUCTS: Final[Mapping[str, Conduct]] = {
    "wazuh-db": Conduct(oversized_wedges=True, answer_limit=REQUEST_LIMIT, streamed_send_timeout=1.0),
    "authd": Conduct(one_shot=True, threads=1, thread_per_connection=True, receive_timeout=1.0),
    "remoted": Conduct(one_shot=True),
    "task-manager": Conduct(one_shot=True, threads=1),
    "analysis": Conduct(one_shot=True, threads=1),
    "com": Conduct(one_shot=True, threads=1),
}


@frozen(kw_only=True)
class Oddities:
    """What a test makes go wrong. The defaults are a healthy daemon.

    * ``answer_delay``: seconds on trio's clock before each answer (a late answer when the client waits less).
    * ``trailing_nul``: count and send a NUL at the end of every answer, as C programs do.
    * ``piece_bytes``: send answers in pieces of so many bytes, with a checkpoint between them.
    * ``cut_after``: send only so many bytes of each frame, header included; ``cut_closes``: then close, else the next
      frame starts inside the announced length.
    * ``close_without_answer``: read the request, then close. ``close_after``: the connection closes after so many
      answers.
    * ``silent``: never answer. ``deaf``: never even read.
    * ``announced_bytes``: the length that the header of every answer announces, whatever comes.
    * ``accepting``: False leaves connections in the backlog. ``backlog``: its size; when it is full, connecting fails
      with EAGAIN.
    """

    answer_delay: float = 0.0
    trailing_nul: bool = False
    piece_bytes: int | None = None
    cut_after: int | None = None
    cut_closes: bool = True
    close_without_answer: bool = False
    close_after: int | None = None
    silent: bool = False
    deaf: bool = False
    announced_bytes: int | None = None
    accepting: bool = True
    backlog: int = 128


HEALTHY: Final = Oddities()


def answer_payloads(answer: Answer) -> list[bytes]:
    """The payloads of an answer's frames; an ``Act`` and ``Raw`` have none."""
    match answer:
        case Act() | Raw():
            return []
        case Frames(payloads=payloads):
            return [one.encode() if isinstance(one, str) else one for one in payloads]
        case bytes():
            return [answer]
        case str():
            return [answer.encode()]
        case _:
            return [json.dumps(answer, separators=(",", ":")).encode()]


def encode_answer(payload: bytes, conduct: Conduct, oddities: Oddities) -> bytes:
    """One frame as it goes on the wire, cuts and lies included."""
    if conduct.answer_limit is not None:
        payload = payload[: conduct.answer_limit]
    if oddities.trailing_nul:
        payload += b"\0"
    announced = len(payload) if oddities.announced_bytes is None else oddities.announced_bytes
    frame = HEADER.pack(announced) + payload
    return frame if oddities.cut_after is None else frame[: oddities.cut_after]
