"""What the connections of one kind of listener have in common, and the shape of an application."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import takewhile
from math import inf
from typing import Final

import trio
from attrs import define, field

from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.http.balancers.trusted import TrustedBalancers
from wazuh_comms_trio.http.server.crowd import Capacity, Unlimited
from wazuh_comms_trio.http.server.giving_way import GivingWay
from wazuh_comms_trio.http.server.hypercorn_protocol import Config, Message, Scope, hypercorn_config
from wazuh_comms_trio.http.server.refusals import Describe
from wazuh_comms_trio.http.server.room import Idle, NeverShort, end_idle, end_oldest
from wazuh_comms_trio.http.server.streams.reading_turns import ReadingTurns
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics, Reading
from wazuh_comms_trio.metrics.refusal_log import RefusalLog

__all__ = ["Application", "ListenerContext", "Receive", "Send"]

#: In metrics: of paths that nothing is served on, and of what never became a request.
UNKNOWN_ROUTE: Final = "other"
#: In metrics, in the status' place: the peer left before its reply.
LEFT: Final = "left"
#: Of failed handshakes: the client speaks TLS, and can't go on with what is set up here or there. What only knocks, or
#: speaks something else, is everyday.
WORTH_A_WARNING: Final = frozenset(
    {"bad_client_certificate", "no_client_certificate", "protocol_version", "nothing_in_common", "distrusts_us"}
)

#: Seconds within which a connection has asked for something, unless its peer is slow.
ASKED_WITHIN: Final = 1.0

logger = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@define(eq=False)
class ListenerContext:
    """``describe`` makes the replies to what the connection itself refuses; the application answers its own errors.
    ``ssl_context`` None: plain. ``balancers``: whose word is taken for a client's address. A new context or new limits
    hold for the next connection.
    """

    app: Application
    limits: Limits
    describe: Describe
    ssl_context: ssl.SSLContext | None = None
    #: Of connections without a request in flight: they wait for a handshake, a head, or their peer's end.
    #: In the order in which they began to.
    idle_scopes: dict[trio.CancelScope, Idle] = field(init=False, factory=dict)
    #: Of connections whose body is being waited for, with when their time for it is over.
    body_scopes: dict[trio.CancelScope, float] = field(init=False, factory=dict)
    #: Of replies that their peers don't read as they come, likewise.
    reply_scopes: dict[trio.CancelScope, float] = field(init=False, factory=dict)
    #: Of connections with much to send.
    reading_turns: ReadingTurns = field(init=False)
    #: Answers so many of the oldest parked polls, if there are; returns how many.
    answer_oldest: Callable[[int], int] = field(default=lambda _: 0, kw_only=True)
    #: Told what was turned away, and how many.
    refused: Callable[[str, int], None] = field(default=lambda what, count: None, kw_only=True)
    #: Told of each reply to an agent that is known: its id, the path, the status, the sender's address.
    answered: Callable[[str, str, int, str | None], None] = field(default=lambda *_: None, kw_only=True)
    #: Other listeners' of the same worker: who waits here may need what their connections hold.
    beside: Sequence[ListenerContext] = field(default=(), kw_only=True)
    #: This process has about all the memory that it may have.
    memory_short: Callable[[], bool] = field(default=NeverShort, kw_only=True)
    #: Awaited before each connection is accepted: another worker may take it meanwhile.
    before_accepting: Callable[[], Awaitable[None]] | None = field(default=None, kw_only=True)
    #: What decides how many of a crowd are begun.
    capacity: Capacity = field(factory=Unlimited, kw_only=True)
    #: Whether something is under way that goes before what a crowd asks for.
    urgent: Callable[[], bool] = field(default=lambda: False, kw_only=True)
    #: While there is a crowd.
    giving_way: GivingWay = field(init=False)
    balancers: TrustedBalancers = field(factory=TrustedBalancers, kw_only=True)
    #: On trio's clock: when these are closed. Set at stop.
    idle_deadline: float = field(init=False, default=inf)
    #: Open connections.
    connections: int = field(init=False, default=0)
    #: Listeners that accept nothing, since no file descriptor, or other room, is left for connections.
    out_of_descriptors: int = field(init=False, default=0)
    hypercorn: Config = field(init=False)
    #: The listeners' name in metrics, and the paths that requests are counted by; others are one.
    name: str = field(default="agents", kw_only=True)
    paths: Collection[str] = field(default=(), kw_only=True)
    metrics: Metrics = field(factory=Metrics, kw_only=True)
    refusals: RefusalLog = field(factory=partial(RefusalLog, logger), kw_only=True)

    def __attrs_post_init__(self) -> None:
        self.hypercorn = hypercorn_config(self.limits.head_bytes)
        self.giving_way = GivingWay(self.urgent)
        self.reading_turns = ReadingTurns(partial(self.refused, "bodies that waited too long"))
        self.metrics.read(self._read_gauges)

    def _read_gauges(self) -> Iterator[Reading]:
        idle, body = len(self.idle_scopes), len(self.body_scopes)
        states = {"idle": idle, "body": body, "request": max(0, self.connections - idle - body)}
        for state, connections in states.items():
            yield families.CONNECTIONS, (self.name, state), connections
        yield families.CROWDED, (), self.out_of_descriptors

    def handshake_failed(self, cause: str, peer: object) -> None:
        """Counts a handshake that failed; ``cause``: as ``handshake_cause`` says it, or ``timeout``."""
        self.metrics.count(families.HANDSHAKES_FAILED, self.name, cause)
        if cause in WORTH_A_WARNING:
            self.refusals.refused(f"TLS handshakes ({cause})", "a TLS handshake with %s failed: %s", peer, cause)

    def count_request(self, path: str, status: int, seconds: float | None = None) -> None:
        """Counts a request that was answered with ``status``; ``seconds``: since its head was there."""
        route = path if path in self.paths else UNKNOWN_ROUTE
        self.metrics.count(families.REQUESTS, self.name, route, str(status) if status else LEFT)
        if seconds is not None:
            self.metrics.observe(families.REQUEST_SECONDS, seconds, self.name, route)

    @property
    def is_stopping(self) -> bool:
        return self.idle_deadline < inf

    def close_idle(self, after: float) -> None:
        """From now on connections without a complete request are closed after that many seconds."""
        self.idle_deadline = trio.current_time() + after
        for scope in self.idle_scopes:
            scope.deadline = min(scope.deadline, self.idle_deadline)

    def stood_still(self, seconds: float) -> None:
        """For so long this process did nothing (it was stopped, or its machine was): peers that we wait for have that
        much longer, since what they sent meanwhile was there, and wasn't read. At stop only those with a request."""
        for scopes in (self.body_scopes, self.reply_scopes):
            for scope, end in scopes.items():
                scopes[scope] = end + seconds
                scope.deadline += seconds
        if not self.is_stopping:
            for scope, idle in self.idle_scopes.items():
                idle.since += seconds
                scope.deadline += seconds

    def make_room(self, count: int) -> int:
        """Ends up to ``count`` connections, since there is no room for those who wait: see ``room.end_oldest``."""
        return end_oldest([self, *self.beside], count)

    def end_idle(self, count: int) -> int:
        """As ``make_room``, but only of connections that ask for nothing."""
        return end_idle([self, *self.beside], count)

    @property
    def idle(self) -> int:
        """Connections without a request in flight, those of listeners beside among them."""
        return sum(len(context.idle_scopes) for context in (self, *self.beside))

    def undecided(self) -> int:
        """How many connections were begun lately and haven't said yet what they ask for."""
        since = trio.current_time() - ASKED_WITHIN
        return sum(1 for _ in takewhile(lambda one: one.began >= since, reversed(self.idle_scopes.values())))

    def deadline_after(self, seconds: float) -> float:
        """The deadline of a wait without a request in flight."""
        return min(trio.current_time() + seconds, self.idle_deadline)
