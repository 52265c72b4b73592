"""Documents that several agents create, where ids are all agents': one of them is there, and the others are told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Final

import trio
from attrs import define

from tests.simulation.trace import Violation
from wazuh_comms_trio.testing.agent.client import stateful_event
from wazuh_comms_trio.testing.agent.http import ExchangeFailed

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Contested"]

_INDEX: Final = "wazuh-states-fim"
_EXISTS: Final = 409


@define
class _Try:
    """``status``: its result's; 0: nobody knows."""

    number: int
    status: int = 0

    @property
    def mark(self) -> bytes:
        return b'"contested":%d}' % self.number


class Contested:
    """docs/guarantees.md, "Where documents may be another's"."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tries: defaultdict[str, list[_Try]] = defaultdict(list)
        self._made = 0

    async def run(self, until: float) -> None:
        rng = Random(f"{self._world.plan.seed} contested")
        while trio.current_time() < until:
            await trio.sleep(rng.expovariate(0.8))
            agent = rng.choice(self._world.agents)
            if agent.client.token is None:
                continue
            self._made += 1
            document_id, one = f"all{rng.randrange(4)}", _Try(self._made)
            self._tries[document_id].append(one)
            event = stateful_event(document_id, "fim", "create", {"by": agent.name, "contested": one.number})
            with suppress(ExchangeFailed):
                reply = await agent.client.post_stateful([event])
                if reply.status == 200:
                    one.status = reply.json()["results"][0]["status"]

    def check(self, documents: Mapping[tuple[str, str], bytes], quarantined: Sequence[tuple[str, bytes]]) -> None:
        plan = self._world.plan
        replays = plan.replays or plan.features.small_shares  # an operator's replay puts another one in its place
        kept = b"\n".join([payload for _, payload in quarantined] + self._world.dropped)
        for document_id, tries in self._tries.items():
            body = documents.get((_INDEX, document_id), b"")
            there = [one for one in tries if one.mark in body]
            told = [one for one in tries if one.status]
            if told and len(there) != 1:
                raise Violation("index", f"{document_id} is {body!r} of {tries}")
            for one in () if replays else told:
                if (one.status == _EXISTS) is (one in there):
                    raise Violation("own results", f"{document_id} is {body!r}, and {one} was answered")
            refused = [one for one in tries if one.status in (0, _EXISTS)]
            if not replays and any(one.status for one in refused) and not any(one.mark in kept for one in refused):
                raise Violation("quarantine", f"of {refused} on {document_id} none is kept")
