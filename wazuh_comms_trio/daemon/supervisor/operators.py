"""Keeps the operators' process, and answers what it asks. Its death is a line in the log; another one is started."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio

from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.child import describe_status, linked_child
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken
from wazuh_comms_trio.foundation.backoff import Backoff

__all__ = ["Answer", "keep_operators"]

logger = logging.getLogger(__name__)

BACKOFF_FIRST: Final = 0.5
BACKOFF_LAST: Final = 30.0
#: A process that lived this long wasn't broken from the start. Seconds.
LONG_LIFE: Final = 60.0
#: Questions that are answered at a time; the process asks one of each kind.
AT_ONCE: Final = 8

#: Answers ``metrics``, ``status`` and ``ready`` with a JSON object.
Answer = Callable[[str], Awaitable[dict[str, Any]]]


async def keep_operators(
    listener: trio.SocketListener, settings: CommunicationsApi, token: str | None, answer: Answer
) -> None:
    """Keeps the process, until cancelled; then the process is killed: it has nothing that could be lost. ``listener``
    stays the caller's, so that clients find it also while there is no process."""
    backoff = Backoff(BACKOFF_FIRST, BACKOFF_LAST)
    while True:
        began = trio.current_time()
        try:
            status = await _run_process(listener.socket.fileno(), settings, token, answer)
            ended = f"ended with {describe_status(status)}"
        except OSError as error:  # no process, no descriptor
            ended = f"can't be started: {error.strerror or error}"
        if trio.current_time() - began >= LONG_LIFE:
            backoff.reset()
        logger.warning("the operators' process %s; it is started again, and agents aren't concerned", ended)
        await trio.sleep(backoff.next_pause())


async def _run_process(listener: int, settings: CommunicationsApi, token: str | None, answer: Answer) -> int:
    async with linked_child("wazuh_comms_trio.daemon.operators_start", pass_fds=[listener]) as (process, link):
        link.send_nowait(_configuration(listener, settings, token))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            nursery.start_soon(_answer_questions, link, answer)
            status = await process.wait()
            nursery.cancel_scope.cancel()
    return status


def _configuration(listener: int, settings: CommunicationsApi, token: str | None) -> messages.OperatorsConfig:
    assert settings.operators is not None
    tls = settings.operators.ssl
    log = settings.logging
    return messages.OperatorsConfig(
        listener=listener,
        log={"level": log.level, "format": log.format, "file": None if log.file is None else str(log.file)},
        cert=None if tls is None else str(tls.cert),
        key=None if tls is None else str(tls.key),
        ca=None if tls is None or tls.ca is None else str(tls.ca),
        token=token,
    )


async def _answer_questions(link: Link, answer: Answer) -> None:
    """Answers what the process asks, until the link ends."""
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def answer_one(question: messages.NodeQuestion) -> None:
        async with limiter:
            document = await answer(question.about)
            link.send_nowait(messages.NodeAnswer(number=question.number, document=msgspec.to_builtins(document)))

    async with trio.open_nursery() as nursery:
        try:
            while True:
                message = await link.receive()
                if isinstance(message, messages.NodeQuestion):
                    nursery.start_soon(answer_one, message)
        except LinkBroken:
            pass
