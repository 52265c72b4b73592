"""What an end of a later version would say over a link: kinds of messages, and fields, that the other one doesn't
know."""

from __future__ import annotations

import trio

from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.link import Link
from wazuh_comms_trio.daemon.supervisor.messages import Message

__all__ = ["say_unknown"]

INTERVAL = 1.3


class _Later(Message, frozen=True, kw_only=True, tag="of a later version"):
    numbers: list[int]


class _LaterHealthRequest(messages.HealthRequest, frozen=True, kw_only=True, tag="ask"):
    depth: int


class _LaterNews(messages.NewCommands, frozen=True, kw_only=True, tag="news"):
    since: float


async def say_unknown(link: Link, *, to_worker: bool) -> None:
    """Says so now and then, until cancelled."""
    while True:
        await trio.sleep(INTERVAL)
        link.send_nowait(_Later(numbers=[1, 2]))
        link.send_nowait(_LaterHealthRequest(depth=3) if to_worker else _LaterNews(agents=[], since=0.5))
