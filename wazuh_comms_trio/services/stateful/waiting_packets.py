"""Packets that no batch has taken yet. Synchronous.

Between agents the oldest goes first while it has waited briefly, then the newest: what has waited for long is mostly
given up before it is written. Within an agent the order is that of its packets. When there is no room for more, all of
the agent that has waited longest are shed, so that none of its packets overtakes another.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from wazuh_comms_trio.services.stateful.submission import Packet

__all__ = ["NEWEST_FIRST_AFTER", "WaitingPackets"]

#: Seconds that the oldest has waited from which on the newest agent's go first.
NEWEST_FIRST_AFTER: Final = 2.0


class WaitingPackets:
    """Packets by agent; ``len``: how many wait. One that nobody waits for any more is dropped when it would be next."""

    def __init__(self) -> None:
        self._since: dict[Packet, float] = {}  # in the order they came
        self._by_agent: dict[str, deque[Packet]] = {}

    def __len__(self) -> int:
        return len(self._since)

    def add(self, packet: Packet, now: float) -> None:
        self._since[packet] = now
        self._by_agent.setdefault(packet.agent_id, deque()).append(packet)

    def next(self, now: float) -> Packet | None:
        self._drop_abandoned()
        if not self._since:
            return None
        agent_id = (next(reversed(self._since)) if self._is_late(now) else next(iter(self._since))).agent_id
        return self._take(agent_id)

    def shed(self, now: float) -> list[Packet]:
        """All packets of the agent that has waited longest, if it has for long and others wait, too."""
        self._drop_abandoned()
        if len(self._by_agent) < 2 or not self._is_late(now):
            return []
        agent_id = next(iter(self._since)).agent_id
        return [self._take(agent_id) for _ in range(len(self._by_agent[agent_id]))]

    def take_all(self) -> list[Packet]:
        packets = list(self._since)
        self._since.clear()
        self._by_agent.clear()
        return packets

    def _take(self, agent_id: str) -> Packet:
        """Takes the agent's first packet."""
        packets = self._by_agent[agent_id]
        packet = packets.popleft()
        if not packets:
            del self._by_agent[agent_id]
        del self._since[packet]
        return packet

    def _is_late(self, now: float) -> bool:
        """Whether the oldest has waited for long."""
        return any(now - since > NEWEST_FIRST_AFTER for since in islice(self._since.values(), 1))

    def _drop_abandoned(self) -> None:
        while self._since and (packet := next(iter(self._since))).abandoned:
            self._take(packet.agent_id)
