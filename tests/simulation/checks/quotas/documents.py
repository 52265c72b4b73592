"""Quotas of embedded stores: nobody has more than there is, and who has been refused for it comes in once an operator
has given more. Of documents: what is counted is what is there."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.stores.embedded import EmbeddedStores
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.embedded.quota.counting import ROW_BYTES, wrong_sums
from wazuh_comms_trio.config.sections.embedded import EmbeddedDocuments

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["UNSEEN", "DocumentQuota", "Quota"]

#: Bytes of an agent's at the beginning, and how many times as much there is each time.
_SHARES: Final = (1500, 4000)
_MORE: Final = 3
#: Seconds for which workers may have the quota of before: until others have taken their place.
_RAISED: Final = 60.0
#: Bytes of a body beside its events, and what a document has beside what its event says.
_ROUND: Final = 200
#: What several workers may add before each has seen what the others did.
UNSEEN: Final = 3000


class Quota:
    """``bytes``: what workers that begin now are given. ``what`` it is of."""

    def __init__(self, world: World, what: str) -> None:
        self.world = world
        self.rng = Random(f"{world.plan.seed} quota{'' if what == 'documents' else f' of {what}'}")
        self.bytes = self.rng.choice(_SHARES) * world.plan.agents
        self._what = what
        self._raised_at = -_RAISED
        self._earlier: list[tuple[float, int]] = []  # until when there was how much
        self._asked = trio.Event()

    @property
    def stores(self) -> EmbeddedStores:
        assert isinstance(self.world.stores, EmbeddedStores)
        return self.world.stores

    def used(self) -> Mapping[str, int]:
        """Bytes that there are, by agent."""
        raise NotImplementedError

    def added(self, body: bytes) -> int:
        """What a body may add, at most."""
        raise NotImplementedError

    def was_raised(self, within: float) -> bool:
        """Whether it was in the last ``within`` seconds: nodes reload then."""
        return trio.current_time() < self._raised_at + within

    @property
    def least_bytes(self) -> int:
        """What some workers may have still."""
        since = trio.current_time() - _RAISED
        return min([had for until, had in self._earlier if until > since], default=self.bytes)

    def has_refused(self, agent_id: str, body: bytes) -> bool:
        """Whether what this body adds may have been refused; then somebody is told."""
        used, more = self.used(), self.added(body)
        least = self.least_bytes
        share = least // max(1, self._agents())
        if used.get(agent_id, 0) + more <= share and sum(used.values()) + more <= least:
            return False
        self.world.trace.strike("full quota", self._what, agent_id[:8])
        self._asked.set()
        return True

    async def run_operator(self) -> None:
        """Until cancelled: gives more, some time after somebody was refused."""
        while True:
            await self._asked.wait()
            await trio.sleep(self.rng.uniform(1.0, 8.0))
            self._earlier.append((trio.current_time(), self.bytes))
            self.bytes *= _MORE
            self._raised_at = trio.current_time()
            self._asked = trio.Event()
            self.world.trace.add("operator", f"lets {self._what} have {self.bytes} bytes")
            for node in self.world.nodes:
                await node.reload()

    def _agents(self) -> int:
        return int(next(iter(self.rows("SELECT count(*) FROM agents")), (0,))[0])

    def rows(self, query: str) -> list[tuple[str, int]]:
        """None while the machine is off."""
        reader = self.stores.reader()
        return [] if reader is None else list(reader.execute(query))


class DocumentQuota(Quota):
    def __init__(self, world: World) -> None:
        super().__init__(world, "documents")
        self.beside = 0  # bytes of documents that the operator wrote, whatever the quota is

    @property
    def settings(self) -> EmbeddedDocuments:
        return EmbeddedDocuments(max_bytes=self.bytes)

    def added(self, body: bytes) -> int:
        return len(body) + (_ROUND + ROW_BYTES) * (body.count(b"\n") // 2)

    def check(self) -> None:
        """Each second. A replay writes whatever the quota is."""
        plan, used = self.world.plan, self.used()
        if plan.replays:
            return
        several = 0 if plan.workers == 1 else UNSEEN
        if sum(used.values()) > self.bytes + self.beside + several:
            raise Violation("quota", f"documents have {sum(used.values())} of {self.bytes} bytes")
        share = self.bytes // plan.agents
        if not plan.removals and (more := {each: had for each, had in used.items() if had > share}):
            raise Violation("quota", f"of {share} bytes each agent's documents have {more}")

    async def check_sums(self) -> None:
        async with self.stores.used() as opened:
            if wrong := await opened.database.read(wrong_sums):
                raise Violation("quota", f"the sums of {wrong} agents aren't those of their documents")

    def used(self) -> Mapping[str, int]:
        query = f"SELECT substr(id, 1, 36), sum(length(body) + {ROW_BYTES}) FROM documents GROUP BY 1"
        return dict(self.rows(query))
