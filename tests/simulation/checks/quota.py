"""A quota of the documents of embedded stores: no agent has more than its share, what is counted is what is there, and
who has been refused for it comes in once an operator has given more."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import trio

from tests.simulation.stores.embedded import EmbeddedStores
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.embedded.quota.counting import ROW_BYTES, wrong_sums
from wazuh_comms_trio.config.sections.embedded import EmbeddedDocuments

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Quota"]

#: Bytes of an agent's documents at the beginning, and how many times as much there is each time.
_SHARES: Final = (1500, 4000)
_MORE: Final = 3
#: Seconds for which workers may have the quota of before: until others have taken their place.
_RAISED: Final = 60.0
#: Bytes of a body beside its events, and what a document has beside what its event says.
_ROUND: Final = 200
#: What several workers may add before each has seen what the others did.
_UNSEEN: Final = 3000


class Quota:
    """``bytes``: what workers that begin now are given."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = Random(f"{world.plan.seed} quota")
        self.bytes = self._rng.choice(_SHARES) * world.plan.agents
        self._raised_at = -_RAISED
        self._asked = trio.Event()

    @property
    def settings(self) -> EmbeddedDocuments:
        return EmbeddedDocuments(max_bytes=self.bytes)

    def was_raised(self, within: float) -> bool:
        """Whether it was in the last ``within`` seconds: nodes reload then."""
        return trio.current_time() < self._raised_at + within

    def has_refused(self, agent_id: str, body: bytes) -> bool:
        """Whether what this body adds may have been refused; then somebody is told."""
        used = self._used()
        more = len(body) + (_ROUND + ROW_BYTES) * (body.count(b"\n") // 2)
        share = self.bytes // max(1, self._agents())
        if (
            not self.was_raised(_RAISED)
            and used.get(agent_id, 0) + more <= share
            and sum(used.values()) + more <= self.bytes
        ):
            return False
        self._world.trace.strike("full quota", "documents", agent_id[:8])
        self._asked.set()
        return True

    async def run_operator(self) -> None:
        """Until cancelled: gives more, some time after somebody was refused."""
        while True:
            await self._asked.wait()
            await trio.sleep(self._rng.uniform(1.0, 8.0))
            self.bytes *= _MORE
            self._raised_at = trio.current_time()
            self._asked = trio.Event()
            self._world.trace.add("operator", f"lets documents have {self.bytes} bytes")
            for node in self._world.nodes:
                await node.reload()

    def check(self) -> None:
        """Each second. A replay writes whatever the quota is."""
        plan, used = self._world.plan, self._used()
        if plan.replays:
            return
        several = 0 if plan.workers == 1 else _UNSEEN
        if sum(used.values()) > self.bytes + several:
            raise Violation("quota", f"documents have {sum(used.values())} of {self.bytes} bytes")
        share = self.bytes // plan.agents
        if not plan.removals and (more := {each: had for each, had in used.items() if had > share}):
            raise Violation("quota", f"of {share} bytes each agent's documents have {more}")

    async def check_sums(self) -> None:
        stores = self._world.stores
        assert isinstance(stores, EmbeddedStores)
        async with stores.used() as opened:
            if wrong := await opened.database.read(wrong_sums):
                raise Violation("quota", f"the sums of {wrong} agents aren't those of their documents")

    def _used(self) -> dict[str, int]:
        query = f"SELECT substr(id, 1, 36), sum(length(body) + {ROW_BYTES}) FROM documents GROUP BY 1"
        return dict(self._rows(query))

    def _agents(self) -> int:
        return int(next(iter(self._rows("SELECT count(*) FROM agents")), (0,))[0])

    def _rows(self, query: str) -> list[tuple[str, int]]:
        """None while the machine is off."""
        stores = self._world.stores
        assert isinstance(stores, EmbeddedStores)
        reader = stores.reader()
        return [] if reader is None else list(reader.execute(query))
