"""The plan of one seed: how big the world is, its limits, and which faults come when. Swarm testing: each seed switches
a random half of the kinds of faults on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf
from random import Random
from typing import Final

from attrs import evolve, field, frozen

from tests.simulation.nodes.versions import VERSIONS, Version
from tests.simulation.plans.faults import (
    BACKUPS,
    CALLS,
    DISK,
    ENDS,
    INDEX,
    NETWORK,
    NODES,
    POWER,
    RESTARTS,
    SUDDEN,
    TOLD,
    UNSERVED,
    Fault,
    feature_faults,
    make_fault,
    more_faults,
)
from tests.simulation.plans.features import Features, choose_features, with_needed
from tests.simulation.plans.limits import POLL_TIMEOUTS, batch_wait, choose_limits, choose_quarantine

__all__ = ["Plan", "make_plan"]

#: Agents of a world from its beginning; those that join it are numbered from here on.
MOST_AGENTS: Final = 10

#: Seconds of a poll that nothing ends before what it waits for.
_LONG: Final = 300.0


@frozen
class Plan:
    seed: int
    nodes: int
    workers: int
    agents: int
    hostile: int
    seconds: float  # of the part with faults
    keeps_posted: bool
    stores: str  # "memory", "embedded" (which one node has), "indexer"
    lease: float
    poll_timeout: float
    batch_elements: int
    batch_wait: float
    eager: bool
    poison: float  # the share of new documents, and of stateless events, that are refused for good
    heals: float  # from when on the index takes what it would have refused
    replays: bool  # the operator sends on what is in quarantine
    together: bool  # agents make their events at the same moments
    short_tokens: bool  # many agents begin with a token that ends within the minute
    rekeys: bool  # the operator gives agents new keys
    removals: bool  # the operator removes agents, which are enrolled again
    copies: bool  # a machine was cloned with its agent: both poll, and make events
    patience: float  # seconds for which a hasty agent waits for an answer to its events
    damages: int  # each to a copy of the files that the node leaves
    indexer_nodes: int
    limits: Mapping[str, int]  # those that are small, by name
    segment: int  # bytes of a segment
    quarantine: int  # bytes of a node's
    first_version: Version  # of the program, before others come
    features: Features
    faults: tuple[Fault, ...] = field(repr=False)

    @property
    def keeps_order(self) -> bool:
        """Does the node keep an agent's order whatever the agent does? Several workers rely on its pause after a
        failure, and a reload has two. So does an indexer with a call under way of a process that died."""
        kinds = {fault.kind for fault in self.faults}
        dies = self.stores == "indexer" and not kinds.isdisjoint(ENDS)
        reloads = not kinds.isdisjoint(("reload", *TOLD)) or self.features.reloads
        return self.nodes * self.workers == 1 and not reloads and not dies

    def __str__(self) -> str:
        return (
            f"{self.stores}; {self.nodes} nodes of {self.workers} workers, {self.agents} agents,"
            f" {self.hostile} hostile; {len(self.faults)} faults in {self.seconds:.0f} s;"
            f" polls {self.poll_timeout:.0f} s, batches of {self.batch_elements} in {self.batch_wait:.2f} s"
        )


def make_plan(seed: int, *, without: Collection[int] = (), only: Collection[int] | None = None) -> Plan:
    """``without``: numbers of faults that are left out, ``only``: those that are kept; everything else stays as it
    is."""
    rng = Random(f"plan {seed}")
    seconds = rng.uniform(15, 45)
    stores = rng.choice(["memory", "embedded", "embedded", "embedded", "indexer", "indexer"])
    embedded = stores == "embedded"
    nodes, workers = rng.choice([(1, 1), (1, 1), (1, 2), (1, 3), *([] if embedded else [(2, 1), (2, 2), (3, 1)])])
    keeps_posted = embedded or (stores == "memory" and rng.random() < 0.5)
    kinds = [("sudden", kind) for kind in SUDDEN] + [("network", kind) for kind in NETWORK]
    kinds += [("call", kind) for kind in CALLS * 2] + [("index", kind) for kind in INDEX]
    if embedded:
        kinds += [("sudden", kind) for kind in (*POWER * 2, *BACKUPS)] + [("disk", kind) for kind in DISK]
    if stores == "indexer":
        kinds += [("indexer", kind) for kind in NODES * 2]
    chosen = [kind for kind in kinds if rng.random() < 0.5] if rng.random() < 0.95 else []
    clustered = rng.random() < 0.5  # faults come together
    faults: list[Fault] = []
    for number in range(rng.randint(4, 14) if chosen else 0):
        near = rng.choice(faults).start if clustered and faults and rng.random() < 0.7 else None
        faults.append(make_fault(rng, number, *rng.choice(chosen), seconds, nodes, near))
    more = Random(f"more {seed}")
    features = choose_features(more, seed)
    features = with_needed(features, stores)
    faults += more_faults(more, len(faults), stores, seconds, nodes)
    if features.many_posts and not keeps_posted:  # what is held in memory is given back meanwhile
        slow = make_fault(more, len(faults), "call", "slow", seconds, nodes, None)
        faults.append(evolve(slow, place="commands.claim" if stores == "memory" else "commands", amount=4.0))
    outlasts_polls = features.revokes_copies or features.set_back or features.fails_last
    waits_for_freed = (features.dies_with_rights and keeps_posted and workers > 1) or features.dies_with_claims
    shares_claims = stores == "indexer" and nodes * workers > 1 and features.held_claims
    late = Random(f"late {seed}")
    for family, kind, changes in feature_faults(late, features, stores, seconds, (nodes, workers), keeps_posted):
        fault = make_fault(late, len(faults), family, kind, seconds, nodes, None)
        fault = evolve(fault, **changes)
        faults.append(evolve(fault, seconds=min(fault.seconds, seconds - fault.start)))
    # What features wait for needs processes that live for a while.
    is_calm = outlasts_polls or (shares_claims and Random(f"calm {seed}").random() < 0.5)
    # Whose each file is has to be known all the time where what comes at once is judged by an agent's share.
    is_known = features.at_once and features.small_events and Random(f"known {seed}").random() < 0.6
    if is_known:
        features = evolve(features, limits_change=False)
    left_out = (
        *(RESTARTS if is_calm else ()),
        *((*ENDS, *POWER) if is_known else ()),
        *(UNSERVED if features.only_reloads else ()),
    )
    faults = [each for each in faults if each.kind not in left_out]
    if features.only_hangs:
        faults = [each for each in faults if each.kind == "hang worker"]
    kept = [each for each in faults if each.number not in without and (only is None or each.number in only)]
    return Plan(
        seed=seed,
        nodes=nodes,
        workers=workers,
        agents=rng.randint(3, MOST_AGENTS),
        hostile=rng.choice([0, 0, 1, 2]),
        seconds=seconds,
        keeps_posted=keeps_posted,
        stores=stores,
        lease=rng.uniform(2, 4 if shares_claims else 10),
        poll_timeout=max(rng.choice(POLL_TIMEOUTS), _LONG if outlasts_polls or waits_for_freed else 0.0),
        batch_elements=rng.choice([1, 2, 5, 20]),
        batch_wait=batch_wait(rng, features),
        eager=rng.random() < 0.7,
        poison=max(rng.choice([0.0, 0.03, 0.2]), 0.2 if features.small_shares or features.small_bodies else 0.0),
        together=rng.random() < 0.3,
        short_tokens=rng.random() < 0.3 and not features.revokes_copies,
        rekeys=rng.random() < 0.4 or features.earlier_keys,
        removals=((rng.random() < 0.4 and not features.prunes) or features.removes_amid_faults) and not is_known,
        copies=(rng.random() < 0.4 or shares_claims or features.revokes_copies or features.dies_with_rights)
        and not (features.set_back or features.crossed_notes),
        # What is held up arrives after what its agent sent again.
        patience=max(rng.choice([0.3, 1.0, inf, inf]), inf if any(each.kind == "hold" for each in faults) else 0.0),
        damages=rng.choice([0, 0, 2]),
        heals=rng.choice([inf, rng.uniform(5.0, seconds)]),
        replays=rng.random() < 0.5,
        indexer_nodes=rng.choice([1, 2, 3]),
        limits=choose_limits(rng, features, seed),
        segment=rng.choice([500, 5000, 1000**2]),
        quarantine=choose_quarantine(features, seed),
        first_version=Random(f"version {seed}").choice(VERSIONS) if features.upgrades else "now",
        features=features,
        faults=tuple(kept),
    )
