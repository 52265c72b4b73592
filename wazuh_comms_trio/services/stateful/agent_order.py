"""The order within an agent: which of its packets may be written now, and which wait behind them. Synchronous.

A *batch* is what one bulk call carries. An agent has at most one *holder* at a time: the batch, or the big packet on
its own, that its events are in flight with. What comes from the same agent meanwhile waits behind the holder; when the
holder is done it is ready, and goes before anything that comes later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from attrs import define, field

from wazuh_comms_trio.config import models
from wazuh_comms_trio.services.stateful.submission import Packet

__all__ = ["AgentOrder", "Batch"]


@define(eq=False)
class Batch:
    """Packets that go together; ``opened`` when the first came, on trio's clock. ``apart``: it may take long, and
    nobody else's packets wait for it."""

    opened: float = 0.0
    apart: bool = False
    packets: list[Packet] = field(factory=list)
    events: int = 0
    size: int = 0

    def add(self, packet: Packet) -> None:
        self.packets.append(packet)
        self.events += 0 if packet.part is None else len(packet.part.events)
        self.size += packet.size

    def is_full(self, limits: models.Batcher) -> bool:
        return self.events >= limits.max_elements or self.size >= limits.max_size


@define(eq=False)
class _Hold:
    """An agent's holder, and the packets behind it."""

    holder: Batch | Packet
    behind: deque[Packet] = field(factory=deque)

    def waiting(self) -> int:
        return len(self.behind)


class AgentOrder:
    """Which holder has which agent, and the packets that wait for it. ``waiting``: how many do, with the ``ready``
    ones, whose holder is done."""

    def __init__(self) -> None:
        self.ready: deque[Packet] = deque()
        self.waiting = 0
        self._holds: dict[str, _Hold] = {}
        self._long: dict[str, _Hold] = {}  # those of them that may take long: few

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self.ready and not self._holds

    def place(self, packet: Packet, batch: Batch, now: float) -> None:
        """Puts ``packet`` into ``batch``, or behind its agent's holder. A big packet (``part`` is None) becomes the
        holder itself: its request is told that its turn has come. One that nobody waits for any more is dropped."""
        if packet.abandoned:
            return
        hold = self._holds.get(packet.agent_id)
        if hold is not None and (hold.holder is not batch or hold.behind or packet.part is None):
            hold.behind.append(packet)
            self.waiting += 1
        elif packet.part is None:
            self._begin(packet.agent_id, packet)
            packet.news.set()
        else:
            if hold is None:
                self._begin(packet.agent_id, batch)
            if not batch.packets:
                batch.opened = now
            batch.add(packet)

    def _begin(self, agent_id: str, holder: Batch | Packet) -> None:
        hold = self._holds[agent_id] = _Hold(holder)
        if isinstance(holder, Packet) or holder.apart:
            self._long[agent_id] = hold

    def take_ready(self) -> Packet:
        """The first of the packets that are ready, to be placed."""
        self.waiting -= 1
        return self.ready.popleft()

    def hand_over(self, batch: Batch, packets: Iterable[Packet]) -> list[Batch]:
        """Some of the packets that ``batch`` holds, in batches of their own, one for each agent, which hold it from now
        on."""
        batches: dict[str, Batch] = {}
        for packet in packets:
            own = batches.setdefault(packet.agent_id, Batch(batch.opened, apart=True))
            own.add(packet)
            hold = self._holds.get(packet.agent_id)
            if hold is not None and hold.holder is batch:
                hold.holder = own
                self._long[packet.agent_id] = hold
        return list(batches.values())

    def release(self, holder: Batch | Packet) -> None:
        """The holder is done: the packets behind it are ready. Nothing happens when it holds nothing."""
        packets: Iterable[Packet] = holder.packets if isinstance(holder, Batch) else (holder,)
        for agent_id in {packet.agent_id for packet in packets}:
            hold = self._holds.get(agent_id)
            if hold is not None and hold.holder is holder:
                del self._holds[agent_id]
                self._long.pop(agent_id, None)
                self.ready.extendleft(reversed(hold.behind))

    def shed_behind(self, most: int) -> list[Packet]:
        """While more than ``most`` wait, takes the newest of the agent of which most do, behind a holder that may take
        long: one that is apart, or a big packet, which takes as long as it is big."""
        shed = list[Packet]()
        while self.waiting > most:
            longest = max(self._long.values(), key=_Hold.waiting, default=None)
            if longest is None or not longest.behind:
                break
            self.waiting -= 1
            shed.append(longest.behind.pop())
        return shed

    def take_all(self) -> list[Packet]:
        """Takes everything that waits, when nothing will be written any more."""
        packets = list(self.ready)
        for hold in self._holds.values():
            packets += hold.behind
            hold.behind.clear()
        self.ready.clear()
        self.waiting = 0
        return packets
