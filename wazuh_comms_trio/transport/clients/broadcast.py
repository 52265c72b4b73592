"""One message to many agents over a datagram queue: in order, waiting when it is full, with a report of who was not
reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio
from attrs import frozen

from wazuh_comms_trio.errors import WazuhInternalError
from wazuh_comms_trio.transport.aio.datagram import WazuhAsyncQueue
from wazuh_comms_trio.transport.blocking.datagram import own_limit
from wazuh_comms_trio.wire.agent_command import agent_datagram
from wazuh_comms_trio.wire.text_rules import check_agent_id, check_list

ALL: Final = "all"


@frozen
class NotReached:
    """An agent whose datagram wasn't sent (``all``: one to every agent), and why."""

    agent_id: str
    reason: str


@frozen
class BroadcastReport:
    """How many datagrams were put into the queue, and who was not reached, in the order given."""

    sent: int
    not_reached: tuple[NotReached, ...] = ()

    @property
    def complete(self) -> bool:
        """Everybody's datagram was sent."""
        return not self.not_reached

    def __add__(self, other: BroadcastReport) -> BroadcastReport:
        """Both together."""
        return BroadcastReport(self.sent + other.sent, self.not_reached + other.not_reached)


async def broadcast(
    queue: WazuhAsyncQueue,
    agent_ids: Sequence[str] | None,
    message: str,
    *,
    msg_type: str = "",
    send_timeout: float | None = None,
) -> BroadcastReport:
    """Send ``message`` to each of ``agent_ids`` in order (None: to all agents at once). See ``send_command``.

    Everything is checked before the first datagram goes out: 1012 for an id or a message that remoted would drop or
    misread. A checkpoint. Cancelled from outside, what was sent stays sent.
    """
    # An id that is empty or None would make a message to one agent one to all of them.
    ids = None if agent_ids is None else [check_agent_id(one) for one in check_list(agent_ids, "agents")]
    limit = own_limit(queue.MAX_MSG_SIZE)
    datagrams = [agent_datagram(message, one, msg_type, limit)[0] for one in ([None] if ids is None else ids)]
    sent = 0
    reason = "the queue stayed full until the deadline"
    try:
        with trio.move_on_after(float("inf") if send_timeout is None else send_timeout):
            await trio.lowlevel.checkpoint()
            for datagram in datagrams:
                if not queue._send_at_once(datagram):
                    await queue._send(datagram)
                sent += 1
    except WazuhInternalError as error:  # 1011: the reader or the queue is gone, the send buffer too small, ...
        reason = error.message
    targets = [ALL] if ids is None else ids
    return BroadcastReport(sent, tuple(NotReached(target, reason) for target in targets[sent:]))
