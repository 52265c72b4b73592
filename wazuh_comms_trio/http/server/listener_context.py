"""What the connections of one kind of listener have in common, and the shape of an application."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from math import inf

import trio
from attrs import define, field

from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.http.server.hypercorn_protocol import Config, Message, Scope, hypercorn_config
from wazuh_comms_trio.http.server.refusals import Describe

__all__ = ["Application", "ListenerContext", "Receive", "Send"]

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@define(eq=False)
class ListenerContext:
    """``describe`` makes the replies to what the connection itself refuses; the application answers its own errors.
    ``ssl_context`` None: plain. A new context or new limits hold for the next connection.
    """

    app: Application
    limits: Limits
    describe: Describe
    ssl_context: ssl.SSLContext | None = None
    #: Of connections without a request in flight: they wait for a handshake, a head, or their peer's end.
    idle_scopes: set[trio.CancelScope] = field(init=False, factory=set)
    #: On trio's clock: when these are closed. Set at stop.
    idle_deadline: float = field(init=False, default=inf)
    #: Open connections.
    connections: int = field(init=False, default=0)
    #: Listeners that accept nothing, since no file descriptor is left for connections.
    out_of_descriptors: int = field(init=False, default=0)
    hypercorn: Config = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.hypercorn = hypercorn_config(self.limits.head_bytes)

    @property
    def is_stopping(self) -> bool:
        return self.idle_deadline < inf

    def close_idle(self, after: float) -> None:
        """From now on connections without a complete request are closed after that many seconds."""
        self.idle_deadline = trio.current_time() + after
        for scope in self.idle_scopes:
            scope.deadline = min(scope.deadline, self.idle_deadline)

    def deadline_after(self, seconds: float) -> float:
        """The deadline of a wait without a request in flight."""
        return min(trio.current_time() + seconds, self.idle_deadline)
