"""The agents' API as one ASGI application: QuartTrio, with the endpoints that must be cheap or stream in front of its
routing.

Quart reads a body without backpressure, and costs 150 µs a request and 14 kB a parked poll. So commands, events and
files are plain ASGI callables, looked up first; authentication, the scan and the root are ordinary Quart views, which
get a body that was already read within the limits. Both kinds share one guard and one table of errors.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from math import inf
from typing import Any, Final

import msgspec
import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from wazuh_comms_trio.api.agent_api.requests import decode_credentials, file_name
from wazuh_comms_trio.api.guard import identify
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.errors import BackendUnavailable, CommsError, TimeLimitExceeded
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.http.server.bodies import BodyBudget, BodyChunks, collect_body, content_length, skip_body
from wazuh_comms_trio.http.server.delivery import EXTENSION
from wazuh_comms_trio.http.server.hypercorn_protocol import Message, Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.refusals import Refusal
from wazuh_comms_trio.http.server.replies import send_empty, send_reply
from wazuh_comms_trio.http.server.routing import Routes
from wazuh_comms_trio.services import Services
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.commands.command_json import encode_commands
from wazuh_comms_trio.services.commands.dispatcher import CommandDelivery
from wazuh_comms_trio.services.deadlines import backend_in_time, give_up_at

__all__ = ["CommsApp", "create_app"]

logger = logging.getLogger(__name__)

PREFIX: Final = "/api/v1"

#: What all collected bodies may take together: five of the largest (or 512 MiB), or five hundred of 1 MB, which
#: agents' full batches are. Two cores parse about 100 MB/s, so what fits in is at most some seconds' work.
BUDGET_BYTES: Final = 512 * 1024 * 1024
BUDGET_LARGEST: Final = 5
#: Nobody's credentials are longer, and they come from anybody.
CREDENTIALS_BYTES: Final = 1024 * 1024
#: For handing claimed commands back, or marking them, when the request is already being cancelled.
SETTLE_TIMEOUT: Final = 5.0

_NOTHING: Final = describe(TimeLimitExceeded())


def create_app(services: Services, config: CommunicationsApi) -> CommsApp:
    """The application of the agents' listeners. It needs no lifespan events."""
    return CommsApp(services, config)


class CommsApp(QuartTrio):
    def __init__(self, services: Services, config: CommunicationsApi) -> None:
        super().__init__(__name__, static_folder=None)
        self.services = services
        self.timeouts = config.timeouts
        self.limits = config.limits
        self.budget = BodyBudget(max(BUDGET_BYTES, BUDGET_LARGEST * config.limits.body_bytes))
        self.routes = Routes(
            {
                f"{PREFIX}/": {"GET": self.alive, "HEAD": self.alive},
                f"{PREFIX}/ready": {"GET": self.ready, "HEAD": self.ready},
                f"{PREFIX}/authentication": {"POST": self._through_quart_anonymous},
                f"{PREFIX}/commands": {"GET": self.commands},
                f"{PREFIX}/events/stateless": {"POST": self.stateless},
                f"{PREFIX}/events/stateful": {"POST": self.stateful},
                f"{PREFIX}/files": {"GET": self.files, "HEAD": self.files},
                f"{PREFIX}/vulnerability/scan": {"POST": self._through_quart_guarded},
            }
        )
        # The limits are the edge's, and were kept before Quart sees anything.
        self.config["MAX_CONTENT_LENGTH"] = self.config["BODY_TIMEOUT"] = self.config["RESPONSE_TIMEOUT"] = None
        add_views(self)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Raises ``CommsError`` for what is to be refused before a reply began, for the connection to answer by the
        table.
        """
        if scope["type"] == "http":
            await self.routes.find(scope)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    # --- plain ASGI

    async def alive(self, scope: Scope, receive: Receive, send: Send) -> None:
        await skip_body(receive)
        await send_empty(send, 200)

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        await skip_body(receive)
        await self.services.readiness.check()
        await send_empty(send, 200)

    async def commands(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = await self._identify(scope)
        await skip_body(receive)
        dispatcher = self.services.commands
        command_delivery: CommandDelivery | None = None
        delivered = False
        try:
            async with BackgroundNursery() as nursery:
                nursery.start_soon(cancel_when_gone, receive, nursery.cancel_scope)
                command_delivery = await dispatcher.poll(caller, deadline=trio.current_time() + dispatcher.poll_limit())
            if command_delivery is None:
                await send_problem(send, _NOTHING)  # to a peer that left, too: sending says so
            else:
                delivery = scope["extensions"].get(EXTENSION)
                if delivery is not None:
                    delivery.expect()
                await send_reply(send, 200, encode_commands(command_delivery.commands))
                delivered = delivery is None or await delivery.confirmed()
        finally:
            if command_delivery is not None:
                with trio.move_on_after(SETTLE_TIMEOUT, shield=True):
                    await (command_delivery.confirm() if delivered else command_delivery.release())

    async def stateful(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = trio.current_time()
        caller = await self._identify(scope)
        # In an outage the one is waited for as the other is: together they have one limit.
        seconds = max(0.0, self.timeouts.stateful - (trio.current_time() - began))
        async with self._collect(receive, self.limits.body_bytes) as body:
            deadline = trio.current_time() + seconds
            with trio.CancelScope(deadline=deadline) as limit:
                reply = await self.services.stateful.submit(caller, body, deadline=deadline)
            if limit.cancelled_caught:
                raise TimeLimitExceeded
        await send_reply(send, 200, reply)

    async def stateless(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = await self._identify(scope)
        seconds = self.timeouts.stateless
        with trio.CancelScope() as limit:

            def at_end() -> None:
                limit.deadline = trio.current_time() + seconds

            chunks = BodyChunks(receive, at_end)
            await self.services.stateless.forward(caller, chunks, length=content_length(scope), limit=seconds)
        if limit.cancelled_caught:
            raise TimeLimitExceeded
        await send_empty(send, 204)

    async def files(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = await self._identify(scope)
        await skip_body(receive)
        name = file_name(scope["query_string"])
        now = trio.current_time()
        with trio.CancelScope(deadline=give_up_at(now + self.timeouts.files, now)) as limit:
            async with self.services.files.open_file(caller, name) as file:
                headers = [
                    (b"content-type", b"application/octet-stream"),
                    (b"content-length", str(file.size).encode("ascii")),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                left = file.size if scope["method"] != "HEAD" else 0
                if left:
                    async with aclosing(file.chunks()) as chunks:
                        async for chunk in chunks:
                            left -= len(chunk)
                            limit.deadline = inf  # sending has limits of its own
                            await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
                            limit.deadline = trio.current_time() + self.timeouts.files
                else:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        if limit.cancelled_caught:
            raise BackendUnavailable  # a folder that hangs; after the reply's head it breaks the reply off

    # --- towards Quart

    async def _through_quart_anonymous(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = min(CREDENTIALS_BYTES, self.limits.body_bytes)
        async with self._collect(receive, limit) as body:
            await self._in_time(self.timeouts.authentication, scope, body, send)

    async def _through_quart_guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["caller"] = await self._identify(scope)
        async with self._collect(receive, self.limits.body_bytes) as body:
            await self._in_time(self.timeouts.scan, scope, body, send)

    async def _in_time(self, seconds: float, scope: Scope, body: bytes | bytearray, send: Send) -> None:
        scope["state"]["deadline"] = deadline = trio.current_time() + seconds
        with trio.CancelScope(deadline=deadline) as limit:
            await super().__call__(scope, once(bytes(body)), in_one_piece(send))  # type: ignore[arg-type]
        if limit.cancelled_caught:
            raise TimeLimitExceeded

    # --- what they share

    async def _identify(self, scope: Scope) -> Caller:
        return await identify(scope, self.services.authentication, time_limit=self.timeouts.authentication)

    def _collect(self, receive: Receive, limit: int) -> Any:
        return collect_body(receive, limit=limit, budget=self.budget, room_timeout=self.limits.body_timeout)


def add_views(app: CommsApp) -> None:
    """The ordinary Quart views, and how their errors are answered."""

    @app.route(f"{PREFIX}/authentication", methods=["POST"], provide_automatic_options=False)
    async def authentication() -> Response:
        uuid, key = decode_credentials(await request.body)
        call = app.services.authentication.authenticate(uuid, key)
        token = await backend_in_time(call, deadline=request.scope["state"]["deadline"])
        return Response(msgspec.json.encode({"token": token}), 200, content_type="application/json")

    @app.route(f"{PREFIX}/vulnerability/scan", methods=["POST"], provide_automatic_options=False)
    async def scan() -> Response:
        state = request.scope["state"]
        body: bytes = await request.body
        reply = await app.services.scans.scan(state["caller"], body, deadline=state["deadline"])
        return Response(reply.body, reply.status, content_type=reply.content_type)

    @app.errorhandler(Exception)
    async def refuse(error: Exception) -> Response:
        # Here, inside the request: quart-trio drops what is raised while a client leaves.
        if isinstance(error, HTTPException):  # Quart's own
            error = CommsError(error.name, code=error.code or 400)
        problem = describe(error)
        if problem.is_bug:
            logger.error("%s %s failed", request.method, request.path, exc_info=error)
        headers = {name.decode("ascii"): value.decode("ascii") for name, value in problem.all_headers}
        return Response(problem.body, problem.status, headers=headers)


def once(body: bytes) -> Callable[[], Awaitable[Message]]:
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
    """A ``send`` for Quart, which says in three messages what fits into one segment. Its replies here are small."""
    parts: list[bytes] = []

    async def collect(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        parts.append(message["body"])
        if not message["more_body"]:
            await send({"type": "http.response.body", "body": b"".join(parts), "more_body": False})

    return collect


async def cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Beside a parked poll: ends it when its peer leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def send_problem(send: Send, problem: Refusal) -> None:
    await send({"type": "http.response.start", "status": problem.status, "headers": problem.all_headers})
    await send({"type": "http.response.body", "body": problem.body, "more_body": False})
