"""Enrolment's ASGI application: the two calls of the management API that an agent makes when it joins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec
import trio

from wazuh_comms_trio.api.agent_api.requests import basic_credentials
from wazuh_comms_trio.api.guard import authorization
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.errors import CommsError, TimeLimitExceeded
from wazuh_comms_trio.http.server.bodies import BodyBudget, collect_body
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.replies import send_reply
from wazuh_comms_trio.http.server.routing import Routes
from wazuh_comms_trio.services.enrollment import EnrollmentService

__all__ = ["create_enrollment_app"]

T = TypeVar("T")

#: An agent's description is below 10 kB.
BODY_BYTES: Final = 1024 * 1024
BUDGET_BYTES: Final = 64 * 1024 * 1024
#: Slowing down wrong passwords is part of it: at most four tries behind each other, with 8 s before each.
TIME_LIMIT: Final = 45.0


def create_enrollment_app(
    enrollment: EnrollmentService, limits: Limits
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """To be served with ``problems.describe_management``."""
    budget = BodyBudget(BUDGET_BYTES)
    body_limit = min(BODY_BYTES, limits.body_bytes)

    async def body_of(receive: Receive) -> bytes | bytearray:
        async with collect_body(receive, limit=body_limit, budget=budget, room_timeout=limits.body_timeout) as body:
            return body

    async def authenticate(scope: Scope, receive: Receive, send: Send) -> None:
        await body_of(receive)
        credentials = basic_credentials(scope["headers"])
        if credentials is None:
            raise CommsError("Invalid credentials", code=401)
        user, password = credentials
        client = scope["client"]
        token = await in_time(enrollment.log_in(user, password, peer=client[0] if client else None))
        await send_reply(send, 200, msgspec.json.encode({"data": {"token": token}, "error": 0}))

    async def enrol(scope: Scope, receive: Receive, send: Send) -> None:
        body = await body_of(receive)
        token = authorization(scope["headers"], b"bearer")
        if token is None:
            raise CommsError("No authorization token provided", code=401)
        data = await in_time(enrollment.enrol(token.decode("latin-1"), body))
        await send_reply(send, 201, msgspec.json.encode({"data": data, "error": 0}))

    routes = Routes({"/security/user/authenticate": {"POST": authenticate}, "/agents": {"POST": enrol}})

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await routes.find(scope)(scope, receive, send)

    return application


async def in_time(call: Awaitable[T]) -> T:
    with trio.move_on_after(TIME_LIMIT):
        return await call
    raise TimeLimitExceeded
