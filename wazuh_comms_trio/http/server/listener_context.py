"""What the connections of one kind of listener have in common, and the shape of an application."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from math import inf

import trio
from attrs import define, field

from wazuh_comms_trio.api.problems import Problem, describe
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.http.server.hypercorn_protocol import Config, Message, Scope, hypercorn_config

__all__ = ["Application", "Edge", "Receive", "Send"]

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@define(eq=False)
class Edge:
    """``ssl_context`` None: plain. ``describe`` makes the replies to what is refused."""

    app: Application
    limits: Limits
    ssl_context: ssl.SSLContext | None = None
    describe: Callable[[BaseException], Problem] = describe
    #: Of connections that wait for a handshake, a head, or their peer's end: nothing is lost with them.
    expendable: set[trio.CancelScope] = field(init=False, factory=set)
    #: On trio's clock: when these have to be over. Set at stop.
    patience_ends: float = field(init=False, default=inf)
    #: How many there are now.
    connections: int = field(init=False, default=0)
    #: Listeners whose connections have to wait, since no descriptor is left for them.
    crowded: int = field(init=False, default=0)
    hypercorn: Config = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.hypercorn = hypercorn_config(self.limits.head_bytes)

    @property
    def is_stopping(self) -> bool:
        return self.patience_ends < inf

    def lose_patience(self, after: float) -> None:
        """From now on connections without a complete request get ``after`` seconds."""
        self.patience_ends = trio.current_time() + after
        for scope in self.expendable:
            scope.deadline = min(scope.deadline, self.patience_ends)

    def allowance(self, seconds: float) -> float:
        """The deadline of such a wait."""
        return min(trio.current_time() + seconds, self.patience_ends)
