"""A Quart application that answers by one table of errors, with plain ASGI handlers in front of its routing.

Quart reads a body without backpressure, and costs 150 µs a request and 14 kB a parked poll. So all that agents ask for
every day is a plain ASGI handler, looked up first. What comes once, enrolment, are ordinary Quart views, for those who
haven't shown yet who they are; they get a body that was already read within the limits. Both kinds are found by exact
paths, and answered alike when they raise.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, Final

import trio
from attrs import frozen
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.errors import CommsError, TimeLimitExceeded
from wazuh_comms_trio.foundation.bodies import Body
from wazuh_comms_trio.http.server.application import handle_request
from wazuh_comms_trio.http.server.bodies import BodyBudget, RequestRoom, Spill, check_length, collect_body
from wazuh_comms_trio.http.server.body_budget import SPARED
from wazuh_comms_trio.http.server.hypercorn_protocol import Message, Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.peer import shown_address
from wazuh_comms_trio.http.server.refusals import Describe
from wazuh_comms_trio.http.server.replies import send_body
from wazuh_comms_trio.http.server.routing import Handler, Routes

__all__ = ["QuartApplication", "in_one_piece"]

logger = logging.getLogger(__name__)

#: What the bodies of those who haven't shown yet who they are may take together: 2000 of the longest log-ins in the
#: making. One that comes in a single piece, as agents' do, isn't counted.
STRANGERS_BYTES: Final = 16 * 1024 * 1024
#: ... and at most this part of what known agents' bodies may take.
STRANGERS_SHARE: Final = 20

#: Seconds that one body waits for room in all, before it is 503: what waits takes a place from those who don't, and
#: its agent comes again.
ROOM_TIMEOUT: Final = 2.0

View = Callable[[], Awaitable[Response]]


@frozen
class _ViewLimits:
    body_bytes: int
    time_limit: float


class QuartApplication(QuartTrio):
    """An application that needs no lifespan events."""

    def __init__(
        self,
        name: str,
        describe: Describe,
        limits: Limits,
        *,
        budget_bytes: int,
        no_room: Callable[[], object] = lambda: None,
        ended: Callable[[str], object] = lambda what: None,
    ) -> None:
        super().__init__(name, static_folder=None)
        self.describe = describe
        self.limits = limits
        self.routes = Routes()
        self._budget = BodyBudget(budget_bytes, no_room=no_room, ended=ended)
        strangers_bytes = min(STRANGERS_BYTES, budget_bytes // STRANGERS_SHARE)
        self._strangers = BodyBudget(strangers_bytes, no_room=no_room, ended=ended, held_for=SPARED)
        # Bodies and times were kept within the limits before Quart sees anything.
        self.config["MAX_CONTENT_LENGTH"] = self.config["BODY_TIMEOUT"] = self.config["RESPONSE_TIMEOUT"] = None
        self.register_error_handler(Exception, self._refuse)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await handle_request(self.routes, self.describe, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def add_handler(self, path: str, handler: Handler, *methods: str) -> None:
        """A plain ASGI handler."""
        for method in methods:
            self.routes.add(path, method, handler)

    def post_view(self, path: str, *, body_bytes: int, time_limit: float) -> Callable[[View], View]:
        """A decorator: a Quart view for strangers, called once its body of at most ``body_bytes`` is there, and for
        ``time_limit`` seconds from then.
        """

        def register(view: View) -> View:
            self.add_url_rule(path, view_func=view, methods=["POST"], provide_automatic_options=False)
            view_limits = _ViewLimits(min(body_bytes, self.limits.body_bytes), time_limit)
            self.routes.add(path, "POST", partial(self._call_view, view_limits))
            return view

        return register

    @property
    def body_budget(self) -> BodyBudget:
        """The budget that the bodies of known agents share."""
        return self._budget

    def collect(
        self,
        receive: Receive,
        limit: int,
        *,
        owner: str | None = None,
        spill: Spill | None = None,
        declared: int | None = None,
        room: RequestRoom | None = None,
    ) -> AbstractAsyncContextManager[Body]:
        """Collects a request's body: see ``collect_body``; all bodies of known agents share one budget. What it has of
        ``room`` is given back with that."""
        return collect_body(
            receive,
            limit=limit,
            budget=self._budget,
            room_timeout=ROOM_TIMEOUT,
            owner=owner,
            spill=spill,
            declared=declared,
            share=None if room is None else room.share,
        )

    @contextmanager
    def room(self, owner: str) -> Iterator[RequestRoom]:
        """What a known agent's body and its reply have of the budget while the block runs."""
        room = RequestRoom(self._budget, owner, ROOM_TIMEOUT)
        try:
            yield room
        finally:
            room.give_back()

    def collect_from_stranger(self, scope: Scope, receive: Receive, limit: int) -> AbstractAsyncContextManager[Body]:
        """As ``collect``, for a sender who hasn't shown yet who it is: all of their bodies share another, small budget.
        Raises ``BodyTooLarge`` at once for a declared length above ``limit``.
        """
        check_length(scope, limit)
        return collect_body(receive, limit=limit, budget=self._strangers, room_timeout=ROOM_TIMEOUT, free_bytes=0)

    async def _call_view(self, view_limits: _ViewLimits, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.collect_from_stranger(scope, receive, view_limits.body_bytes) as body:
            with trio.CancelScope(deadline=trio.current_time() + view_limits.time_limit) as limit:
                await super().__call__(scope, once(bytes(body)), in_one_piece(send))  # type: ignore[arg-type]
            if limit.cancelled_caught:
                raise TimeLimitExceeded

    async def _refuse(self, error: Exception) -> Response:
        # Here, inside Quart's request: quart-trio drops what is raised while a client leaves.
        if isinstance(error, HTTPException):  # Quart's own
            error = CommsError(error.name, code=error.code or 400)
        refusal = self.describe(error)
        if refusal.is_bug:
            logger.error("%s %s failed", request.method, request.path, exc_info=error)
        client = shown_address(request.scope["client"])
        logger.debug("%s %s %s: %d %s", client, request.method, request.path, refusal.status, refusal.summary)
        headers = {name.decode("ascii"): value.decode("ascii") for name, value in refusal.all_headers}
        return Response(refusal.body, refusal.status, headers=headers)


def once(body: bytes) -> Receive:
    """A ``receive`` that has the whole body, and then nothing to say: Quart cancels a request whose peer sends an end
    of file, which a peer that waits for its reply may do.
    """
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not messages:
            await trio.sleep_forever()
        return messages.pop()

    return receive


def in_one_piece(send: Send) -> Send:
    """A ``send`` for Quart, which says in three messages what fits into one segment. Nearly all of its replies here are
    small."""
    parts: list[bytes] = []

    async def collect(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        parts.append(message["body"])
        if not message["more_body"]:
            await send_body(send, b"".join(parts))

    return collect
