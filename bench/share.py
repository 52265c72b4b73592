"""How much of the indexer's own rate of bulk calls the daemon reaches, when the indexer is the limit.

The indexer has one core for itself, and its write queue one thread. The agents, the daemon, and in its turn a bare
client, share the other one. Agents push until the batcher is full, each request over a connection of its own; the bare
client posts the very bodies that the daemon made of such requests (with other ids, compressed before), over as many
connections as the daemon has calls in flight. Their rounds alternate, and each begins with empty indices: which round
an indexer merges the segments of all before in is chance, and takes a fifth of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.processes import Payload, Round, cores, run_round
from bench.relay import Call, is_compressed
from bench.site import Daemons, Site, make_calls
from bench.workloads import Agent, Workload
from tests.indexer.harness import call

GOAL = 0.9
BUSY = 0.9  # of a core: who is so busy is the limit
SECONDS = 4.0  # of a round, about
FEWEST = 40  # requests of one
UPKEEP_BYTES = 8192  # other calls of a daemon are shorter


@dataclass(frozen=True)
class Load:
    """``agents`` push ``events`` a request at the same time. ``in_flight``: the bulk calls that the daemon makes of it
    at a time (services/stateful/events.py: batches, or the pieces of big packets)."""

    events: int
    agents: int
    in_flight: int


#: By the batcher's settings. With the defaults each packet of a hundred events is a batch of its own.
LOADS: Mapping[str, Sequence[Load]] = {
    "default": (Load(100, 64, 8), Load(1000, 16, 4)),
    "max_elements 1000": (Load(100, 128, 8),),
}


@dataclass(frozen=True)
class Share:
    workload: str
    agents: int
    in_flight: int
    documents_per_second: float
    documents_per_call: float
    plain_documents_per_second: float
    share: float
    goal: float
    indexer_busy: float
    indexer_busy_plain: float
    others_busy: float  # daemon and agents
    bare_busy: float

    @property
    def work(self) -> float:
        """What a document costs the indexer in CPU by a plain call, as a part of what it costs by ours. It hardly
        depends on whatever else the machine does."""
        ours = self.indexer_busy / self.documents_per_second
        return self.indexer_busy_plain / self.plain_documents_per_second / ours

    @property
    def verdict(self) -> str:
        if self.others_busy >= BUSY:
            return "our core is the limit"
        return "goal met" if self.share >= self.goal else "below the goal"

    def __str__(self) -> str:
        return (
            f"{self.workload + f', {self.agents} agents':<34}{self.documents_per_second:>7.0f} documents/s; "
            f"{self.in_flight} plain bulk calls of {self.documents_per_call:.0f} at a time reach "
            f"{self.plain_documents_per_second:.0f}: {self.share:.0%} (goal {self.goal:.0%}; busy: the indexer's core "
            f"{self.indexer_busy:.0%} and {self.indexer_busy_plain:.0%}, the other one {self.others_busy:.0%} and "
            f"{self.bare_busy:.0%}; by the indexer's CPU {self.work:.0%}): {self.verdict}"
        )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "share_by_cpu": self.work, "verdict": self.verdict}


class Bench:
    def __init__(self, site: Site, daemons: Daemons, load: Load, workload: Workload, agents: Sequence[Agent]) -> None:
        self._site = site
        self._daemons = daemons
        self._load = load
        self._workload = workload
        self._agents = agents[: load.agents]

    def measure(self, rounds: int, seconds: float = SECONDS) -> Share:
        load = self._load
        bulk, documents_per_call = self._record()
        # The first of each shows how many make a round, and warms up.
        rate, plain_rate = self._push(FEWEST)[0], self._post(bulk, 1)[0]
        requests = max(FEWEST, int(rate * seconds / load.events))
        repeat = max(1, round(plain_rate * seconds / (documents_per_call * len(bulk))))
        self._push(requests)
        self._post(bulk, repeat)
        ours, plain = [], []
        for _ in range(rounds):
            self._empty()
            ours.append(self._push(requests))
            self._empty()
            plain.append(self._post(bulk, repeat))
        return Share(
            workload=self._workload.name,
            agents=load.agents,
            in_flight=load.in_flight,
            documents_per_second=median(each[0] for each in ours),
            documents_per_call=documents_per_call,
            plain_documents_per_second=median(each[0] for each in plain),
            share=median(one[0] for one in ours) / median(other[0] for other in plain),
            goal=GOAL,
            indexer_busy=median(each[1] for each in ours),
            indexer_busy_plain=median(each[1] for each in plain),
            others_busy=median(each[2] for each in ours),
            bare_busy=median(each[2] for each in plain),
        )

    def _empty(self) -> None:
        """The indices of states as they are, without their documents."""
        port = self._site.indexer_port
        for name, index in call(port, "GET", "/wazuh-states-*").items():
            call(port, "DELETE", f"/{name}")
            call(port, "PUT", f"/{name}", {"mappings": index["mappings"]})

    def _payloads(self, count: int) -> list[Payload]:
        return self._workload.make(self._agents, count)

    def _record(self) -> tuple[list[Call], float]:
        """The bulk calls of some requests, and how many documents each has."""
        count = max(FEWEST, 2 * self._load.agents)
        self._daemons.relay.calls.clear()
        run_round(self._daemons.recorded, self._payloads(count), self._load.agents, 200, core=cores()[0])
        bulk = [
            call for call in self._daemons.relay.calls if is_compressed(call) or len(call.body or b"") > UPKEEP_BYTES
        ]
        return bulk, count * self._load.events / len(bulk)

    def _push(self, requests: int) -> tuple[float, float, float]:
        """Documents a second through the daemon; how busy the indexer's core was with it, and the other one."""
        before = self._site.indexer_cpu()
        done: Round = run_round(self._daemons.direct, self._payloads(requests), self._load.agents, 200, core=cores()[0])
        seconds = requests / done.rate
        others = requests * (done.cpu_ms + done.client_cpu_ms) / 1000
        return done.rate * self._load.events, (self._site.indexer_cpu() - before) / seconds, others / seconds

    def _post(self, bulk: Sequence[Call], repeat: int) -> tuple[float, float, float]:
        """As ``_push``, by the bare client."""
        before = self._site.indexer_cpu()
        done = make_calls(self._site.indexer_port, bulk, repeat=repeat, connections=self._load.in_flight)
        busy = (self._site.indexer_cpu() - before) / done.seconds
        return done.documents / done.seconds, busy, done.cpu_ms / 1000 / done.seconds
