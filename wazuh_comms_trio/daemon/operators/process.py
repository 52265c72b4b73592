"""The operators' process: an ordinary Quart application, served by hypercorn's public ``serve``.

    python -m wazuh_comms_trio.daemon.operators_start LINK_DESCRIPTOR

The first message on the link says everything else. The process ends with the link. Whatever becomes of it, agents don't
notice: it has its own descriptors, its own memory, and stands back behind the workers.
"""

from __future__ import annotations

import logging
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any, Final

import msgspec
import trio
from attrs import define, field
from hypercorn.config import Config
from hypercorn.trio import serve

from wazuh_comms_trio.api.operators import create_operators_app
from wazuh_comms_trio.config.models import Logging
from wazuh_comms_trio.daemon.logging.formats import set_up_logs
from wazuh_comms_trio.daemon.operators.connection_limits import ConnectionLimits
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.log_context import WORKER
from wazuh_comms_trio.http.server.hypercorn_protocol import read_at_most

__all__ = ["main"]

#: An application: of a scope, ``receive`` and ``send``.
Asgi = Callable[[Any, Any, Any], Awaitable[None]]

logger = logging.getLogger(__name__)

#: Seconds that the node may take for an answer.
ANSWER_LIMIT: Final = 4.0
#: Seconds for which an answer is given again: scrapers together cost the node one question a second of each kind.
FRESH: Final = 1.0
#: Clients that wait to be accepted.
BACKLOG: Final = 1024
#: Seconds that a client may take for its request's head.
HEAD_TIMEOUT: Final = 5.0
#: Bytes of a head, and of one read on top: what takes h11 longest, blanks before a control character, takes it 50 ms.
HEAD_BYTES: Final = 4096
READ_BYTES: Final = 1024


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is the daemon's to handle
    WORKER.set("operators")
    trio.run(_run, int(sys.argv[1]))
    return 0


async def _run(descriptor: int) -> None:
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    link = Link(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
    try:
        first = await link.receive()
    except LinkBroken:
        return
    if not isinstance(first, messages.OperatorsConfig):
        raise SystemExit(f"the first message isn't a configuration: {first}")
    with suppress(OSError, TypeError, msgspec.ValidationError):  # a log file that the daemon, too, can't write
        set_up_logs(Logging(**first.log))
    node = LinkedNode(link)
    app = sends_whole(create_operators_app(node.ask, token=first.token))
    limits = ConnectionLimits()
    read_at_most(READ_BYTES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        nursery.start_soon(limits.run)
        nursery.start_soon(serve, app, hypercorn_config(first))
        with suppress(LinkBroken):
            while True:
                node.handle(await link.receive())
        nursery.cancel_scope.cancel()


def sends_whole(app: Asgi) -> Asgi:
    """Shields what ``app`` sends: hypercorn closes a connection in the send that ends its reply, and tells the
    application of it before; Quart-Trio cancels the request's tasks then, that send with them, and the connection would
    stay open. ``ConnectionLimits`` ends sends that take too long."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def send_whole(message: Any) -> None:
            with trio.CancelScope(shield=True):
                await send(message)

        await app(scope, receive, send_whole)

    return wrapped


def hypercorn_config(first: messages.OperatorsConfig) -> Config:
    config = _TlsConfig() if first.ca is not None else Config()
    config.bind = [f"fd://{first.listener}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.alpn_protocols = ["http/1.1"]
    config.h11_max_incomplete_size = HEAD_BYTES
    config.keep_alive_timeout = HEAD_TIMEOUT
    config.backlog = BACKLOG
    config.graceful_timeout = 0.5
    if first.cert is not None and first.key is not None:
        config.certfile, config.keyfile, config.ca_certs = first.cert, first.key, first.ca
    return config


class _TlsConfig(Config):
    """Clients must show a certificate."""

    verify_mode = ssl.VerifyMode.CERT_REQUIRED


@define(eq=False)
class _Question:
    answered: trio.Event = field(factory=trio.Event)
    document: dict[str, Any] | None = None


class LinkedNode:
    """The node at the link's other end."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = count(1)
        self._questions: dict[int, _Question] = {}
        self._locks = {about: trio.Lock() for about in ("metrics", "status", "ready")}
        self._answers: dict[str, tuple[float, dict[str, Any]]] = {}

    async def ask(self, about: str) -> dict[str, Any]:
        """The node's answer, at most a second old. Raises ``BackendUnavailable``."""
        async with self._locks[about]:
            when, document = self._answers.get(about, (0.0, None))
            if document is not None and trio.current_time() - when < FRESH:
                return document
            document = await self._ask(about)
            self._answers[about] = (trio.current_time(), document)
            return document

    async def _ask(self, about: str) -> dict[str, Any]:
        number = next(self._numbers)
        question = self._questions[number] = _Question()
        self._link.send_nowait(messages.NodeQuestion(number=number, about=about))
        try:
            with trio.move_on_after(ANSWER_LIMIT):
                await question.answered.wait()
        finally:
            del self._questions[number]
        if question.document is None:
            raise BackendUnavailable("The node doesn't answer")
        return question.document

    def handle(self, message: messages.Message | messages.Unknown) -> None:
        if isinstance(message, messages.NodeAnswer):
            if (question := self._questions.get(message.number)) is not None:
                question.document = message.document
                question.answered.set()
        else:
            logger.debug("a message that isn't for the operators' process: %r", message)
