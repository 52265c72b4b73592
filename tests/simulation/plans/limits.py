"""Limits: those that aren't configured, of which a run has some small, so that what happens beyond them does happen,
and those that are, which a reload changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, Final

from attrs import evolve

from wazuh_comms_trio.api.agent_api import base, commands
from wazuh_comms_trio.backends import command_rules
from wazuh_comms_trio.backends.embedded import agents, documents, group_expansion, pruning
from wazuh_comms_trio.backends.embedded import commands as own_commands
from wazuh_comms_trio.backends.embedded.database import group_commit
from wazuh_comms_trio.backends.embedded.ndjson import engine
from wazuh_comms_trio.backends.files import folder
from wazuh_comms_trio.backends.opensearch.agents import agent_search
from wazuh_comms_trio.backends.opensearch.commands import discovery
from wazuh_comms_trio.backends.opensearch.commands import store as command_store
from wazuh_comms_trio.backends.opensearch.events import index
from wazuh_comms_trio.config import capacity
from wazuh_comms_trio.config.limits.models import RouteLimit, RouteLimits
from wazuh_comms_trio.config.models import Batcher, CommunicationsApi, Config, Keep, Limits, Shutdown, Timeouts
from wazuh_comms_trio.daemon.supervisor import generation
from wazuh_comms_trio.http.server import bodies
from wazuh_comms_trio.quarantine import rows, store
from wazuh_comms_trio.services.commands import command_json, deliveries, lookup_queue, upkeep
from wazuh_comms_trio.services.stateful import events

if TYPE_CHECKING:
    from tests.simulation.plans.features import Features
    from tests.simulation.plans.plan import Plan

__all__ = [
    "AGENT_BURST",
    "AGENT_RATE",
    "DAY",
    "KEEP",
    "POLL_TIMEOUTS",
    "SHARE_BATCH",
    "SHORT_TIMES",
    "SHORT_WAIT",
    "batch_wait",
    "changed",
    "choose_limits",
    "choose_quarantine",
    "set_limits",
    "with_pauses",
    "with_rates",
    "with_route_limits",
    "with_short_waits",
    "with_totals",
]

#: Bytes of one body's events where a quarantine's shares are small: eight events, each of 850 bytes there.
SHARE_BATCH: Final = 600
#: Of polls, seconds.
POLL_TIMEOUTS: Final = (4.0, 15.0, 60.0, 300.0)
#: Seconds of a day, where what is old goes, and for how many of them is kept what has an age.
DAY: Final = 4
KEEP: Final = Keep(finished_commands=5, removed_agents=4)
#: Requests of an agent, of each kind, in a second and at once, where they are limited.
AGENT_RATE: Final = 4.0
AGENT_BURST: Final = 12
#: Of requests that a store which hangs for some seconds doesn't answer in time.
SHORT_TIMES: Final = Timeouts(authentication=5.0, stateless=3.0, stateful=6.0, files=3.0, scan=5.0)

#: Seconds that a peer which does nothing is waited for.
SHORT_WAIT: Final = 3.0

_SMALL: Final[Sequence[tuple[ModuleType, str, Sequence[int]]]] = (
    (events, "_SMALL_PACKET_BYTES", (200, 400)),  # a body above it is written in pieces
    (events, "_PIECE_EVENTS", (1, 2, 3)),
    (engine, "MEMORY_BYTES", (100, 350)),  # a stateless body above it is a segment of its own
    (documents, "_PART_BYTES", (150, 500)),
    (group_commit, "GROUP_JOBS", (1, 2)),
    (lookup_queue, "_AGENTS_PER_LOOKUP", (1, 2)),
    (deliveries, "_COMMANDS_PER_DELIVERY", (1, 2)),
    (command_rules, "CLAIM_LIMIT", (1, 2)),
    (index, "_SMALLEST_LIMIT", (100, 400)),  # a bulk call above it is halved when there is no room for it
    (discovery, "_PAGE", (20, 50)),
    (upkeep, "_COMPARED_AT_ONCE", (1, 2)),
)
#: As limits know the size of a page of what is listed; modules call it as others do.
_LISTED: Final = "listed _PAGE"
#: By feature, those that are small with it.
_WITH_FEATURE: Final[Mapping[str, Sequence[tuple[Sequence[ModuleType], str, Sequence[int]]]]] = {
    "large_commands": [((command_json,), "LARGEST_REPLY", (700, 1500))],  # of three commands or more
    "cancels_groups": [((group_expansion,), "AT_ONCE", (1, 2))],  # so that there is a while in which they come
    "payload_files": [((rows, store), "INLINE_BYTES", (40, 130))],
    "small_bodies": [((bodies, commands), "FREE_BYTES", (0, 200))],
    # Of bodies at once some are written in pieces, between which others would come.
    "at_once": [((events,), "_SMALL_PACKET_BYTES", (200, 65_536)), ((events,), "_PIECE_EVENTS", (1, 2))],
    # Of a few bodies, some of them files; the one that may go beyond it is what nearly all rely on.
    "prunes": [((pruning,), "DAY", (DAY,)), ((pruning,), "INTERVAL", (1, 2)), ((pruning,), "ROWS", (1, 3))],
    "small_room": [
        ((capacity,), "LARGEST_BUDGET", (1500, 4000, 12_000)),
        ((capacity,), "LEAST_BUDGET", (1000,)),
        ((capacity,), "_BODIES", (0,)),
        ((base,), "SPILLED_BODIES", (0, 20)),
        ((bodies,), "SPILLED_BYTES", (300, 1500)),
        ((bodies,), "WRITTEN_AT_ONCE", (100, 700)),
    ],
    "route_limits": [((base,), "TRANSFER_BYTES", (60, 400))],  # so that some bodies and files are large
    "listings": [((agent_search, agents, own_commands, command_store), _LISTED, (2, 5, 30))],
    "hard_starts": [((generation,), "START_TIMEOUT", (3, 8, 60))],
    "changing_files": [((folder,), "READ_AHEAD", (20, 1000)), ((folder,), "CHUNK", (10, 50))],
}
_USUAL: Final = {
    (module, name): getattr(module, name.rpartition(" ")[2])
    for modules, name in (
        *(((module,), name) for module, name, _ in _SMALL),
        *((modules, name) for several in _WITH_FEATURE.values() for modules, name, _ in several),
    )
    for module in modules
}


def choose_limits(rng: Random, features: Features, seed: int) -> Mapping[str, int]:
    chosen = [rng.choice(values) if rng.random() < 0.3 else None for _, _, values in _SMALL]
    found = {name: value for (_, name, _), value in zip(_SMALL, chosen, strict=True) if value is not None}
    for feature, several in _WITH_FEATURE.items():
        if getattr(features, feature):
            found |= {name: Random(f"{name} {seed}").choice(values) for _, name, values in several}
    return found


def choose_quarantine(features: Features, seed: int) -> int:
    """Bytes of a node's, of which an agent has a tenth: small, it holds what one body may bring (``SHARE_BATCH``)."""
    return Random(f"quarantine {seed}").choice([75_000, 120_000]) if features.small_shares else 1024**3


def with_route_limits(limits: Limits) -> Limits:
    """More than an honest agent has in flight, as a rule: what an answer was lost of may be so still."""
    few, polls = RouteLimit(agent_requests=3), RouteLimit(agent_requests=8)
    routes = RouteLimits(commands=polls, stateless=few, stateful=few, files=few, scan=few)
    return evolve(limits, routes=routes, agent_uploads=2, agent_downloads=2)


def with_rates(limits: Limits) -> Limits:
    """More than an honest agent asks for, as a rule."""
    often = RouteLimit(agent_rate=AGENT_RATE, agent_burst=AGENT_BURST)
    return evolve(limits, routes=RouteLimits(often, often, often, often, often))


def with_short_waits(limits: Limits) -> Limits:
    """Less than what is held up in the network takes to arrive."""
    return evolve(
        limits,
        handshake_timeout=SHORT_WAIT,
        head_timeout=SHORT_WAIT,
        body_timeout=SHORT_WAIT,
        stall_timeout=SHORT_WAIT,
        send_timeout=SHORT_WAIT,
    )


def with_pauses(api: CommunicationsApi, seed: int) -> CommunicationsApi:
    """Before and while a node stops."""
    rng = Random(f"pauses {seed}")
    return evolve(api, shutdown=Shutdown(delay=rng.choice([0.0, 0.0, 2.0]), spread=rng.choice([0.0, 0.0, 3.0])))


def with_totals(limits: Limits) -> Limits:
    """Less than all agents together ask for at times; polls, which are there all the time, aren't limited."""
    routes = ("stateless", "stateful", "files", "scan")
    few = {name: evolve(getattr(limits.routes, name), rate=3.0, burst=4, requests=3) for name in routes}
    return evolve(limits, routes=evolve(limits.routes, **few))


def batch_wait(rng: Random, features: Features) -> float:
    """Seconds. Others wait for a body's room for two seconds at most."""
    return min(rng.choice([0.0, 0.15, 1.0]), 0.15 if features.small_room else inf)


def set_limits(limits: Mapping[str, int]) -> None:
    """The others are what they usually are."""
    for (module, name), usual in _USUAL.items():
        setattr(module, name.rpartition(" ")[2], limits.get(name, usual))


def changed(config: Config, plan: Plan, node: int, generation: int) -> Config:
    """What a node's configuration has become by a generation."""
    rng = Random(f"{plan.seed} configuration {node} {generation}")
    api = config.communications_api
    elements, wait_time = rng.choice([1, 5, 20]), batch_wait(rng, plan.features)
    batcher = Batcher(max_elements=elements, wait_time=wait_time, eager=rng.random() < 0.7)
    return Config(
        evolve(
            api,
            workers=api.workers if plan.keeps_order else rng.choice([1, 2, 3]),
            batcher=batcher,
            timeouts=evolve(api.timeouts, commands=rng.choice(POLL_TIMEOUTS)),
            limits=evolve(api.limits, parked_polls=rng.choice([0, 0, 2, 4])),
        )
    )
