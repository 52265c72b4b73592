"""Which packets share a bulk call, and in what order an agent's packets go. Synchronous: decides, waits for nothing.

A *batch* is what one bulk call carries. An agent has at most one *holder* at a time: the batch, or the packet on its
own, that its events are in flight with. What comes from the same agent meanwhile stands behind the holder, and takes
its place in the queue again, first, when the holder is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from attrs import define, field

from wazuh_comms_trio.config.models import Batcher
from wazuh_comms_trio.services.stateful.submission import Packet

__all__ = ["Batch", "Queue"]


@define(eq=False)
class Batch:
    """Packets that go together; ``opened`` when the first came, on trio's clock."""

    opened: float = 0.0
    packets: list[Packet] = field(factory=list)
    events: int = 0
    size: int = 0

    def is_full(self, limits: Batcher) -> bool:
        return self.events >= limits.max_elements or self.size >= limits.max_size


@define(eq=False)
class _Hold:
    """An agent's holder, and the packets behind it."""

    holder: Batch | Packet
    behind: deque[Packet] = field(factory=deque)


class Queue:
    """Packets in the order they came, and who holds which agent."""

    def __init__(self) -> None:
        self._waiting: deque[Packet] = deque()
        self._holds: dict[str, _Hold] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return not self._waiting and not self._holds

    def append(self, packet: Packet) -> None:
        self._waiting.append(packet)

    def hold_alone(self, packet: Packet) -> bool:
        """Let ``packet`` go on its own, now; False when its agent has to wait."""
        if packet.agent_id in self._holds:
            return False
        self._holds[packet.agent_id] = _Hold(packet)
        return True

    def fill(self, batch: Batch, limits: Batcher, now: float) -> None:
        """Takes from the queue until ``batch`` is full or nothing is left. Packets without events of their own to batch
        (``part`` is None) get their turn instead."""
        while self._waiting and not batch.is_full(limits):
            self._place(self._waiting.popleft(), batch, now)

    def _place(self, packet: Packet, batch: Batch, now: float) -> None:
        if packet.abandoned:
            return
        hold = self._holds.get(packet.agent_id)
        if hold is not None and (hold.holder is not batch or hold.behind or packet.part is None):
            hold.behind.append(packet)
        elif packet.part is None:
            self._holds[packet.agent_id] = _Hold(packet)
            packet.news.set()
        else:
            if hold is None:
                self._holds[packet.agent_id] = _Hold(batch)
            if not batch.packets:
                batch.opened = now
            batch.packets.append(packet)
            batch.events += len(packet.part.events)
            batch.size += packet.size

    def release(self, holder: Batch | Packet) -> None:
        """The holder is done: those behind it come next."""
        packets: Iterable[Packet] = holder.packets if isinstance(holder, Batch) else (holder,)
        for agent_id in {packet.agent_id for packet in packets}:
            hold = self._holds.get(agent_id)
            if hold is not None and hold.holder is holder:
                del self._holds[agent_id]
                self._waiting.extendleft(reversed(hold.behind))

    def take_all(self) -> list[Packet]:
        """Everything that waits, when nothing will be applied any more."""
        packets = list(self._waiting)
        for hold in self._holds.values():
            packets += hold.behind
            hold.behind.clear()
        self._waiting.clear()
        return packets
