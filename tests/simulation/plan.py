"""The plan of one seed: how big the world is, its limits, and which faults come when. Swarm testing: each seed switches
a random half of the kinds of faults on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import floor, inf
from random import Random
from typing import Any, Final

from attrs import evolve, field, frozen

from tests.simulation.features import Features, choose_features
from tests.simulation.limits import POLL_TIMEOUTS, choose_limits, choose_quarantine
from tests.simulation.nodes.versions import VERSIONS, Version

__all__ = ["Fault", "Plan", "make_plan"]

#: What happens at a moment, to a node or one of its workers.
SUDDEN: Final = (
    "kill worker",
    "kill node",
    "stop node",
    "hang worker",
    "cut link",
    "reload",
    "clock jump",
    "clock blip",
)
#: What a call of a store may meet besides: its node is told to stop just then.
STOPPED: Final = ("told to stop",)
#: By which a process ends.
ENDS: Final = ("kill worker", "kill node", "stop node", "hang worker", "cut link", "die", *STOPPED)
#: By which polls do, besides.
RESTARTS: Final = (*ENDS, "reload", "power cut", "restore")
#: A wall clock that is wrong until faults end, or for a moment.
CLOCKS: Final = ("clock jump", "clock blip")
#: What a connection may meet that is made while the fault lasts.
NETWORK: Final = ("cut", "hold", "silent", "split", "refuse", "slow reader", "forget", "drop", "leave", "far")
#: What a call of a store may meet while the fault lasts.
CALLS: Final = ("fail", "lose answer", "slow", "hang", "full", "die")
#: What happens to the disk under the embedded stores: at a moment, and to its calls while the fault lasts.
POWER: Final = ("power cut",)
#: What an operator does with the embedded stores: a backup while the node serves, and one from which they are put back
#: while it is stopped.
BACKUPS: Final = ("backup", "restore")
DISK: Final = ("disk full", "disk fail", "disk short")
STORES: Final = ("agents", "events", "commands", "engine", "quarantine", "presence")
#: Calls that a fault may strike alone.
METHODS: Final = (
    *("commands.claim", "commands.mark_sent", "commands.mark_sent", "commands.release", "commands.report"),
    *("events.bulk", "events.bulk", "quarantine.add", "engine.send_events", "agents.lookup", "agents.get"),
)
#: Those after whose answer the power may go.
ANSWERED: Final = (
    *("commands.report", "commands.report", "commands.report", "commands.report", "commands.mark_sent"),
    *("commands.claim", "events.bulk", "engine.send_events", "quarantine.add"),
)
#: What a process dies with that has the result of its call in its hands, and nothing where that has none: an amount.
WITH_RESULT: Final = 9.0  # by chance none has so much
#: What the index may say of a part of the documents.
INDEX: Final = ("passing",)

#: What happens to one of the indexer's nodes.
NODES: Final = ("indexer down", "indexer hangs", "indexer stale", "indexer primary moves")
#: Likewise: shards that searches don't reach, a node of ours that doesn't reach one, answers that come twice.
MORE_NODES: Final = ("indexer partial", "indexer split", "indexer answers twice")
#: What happens to the engine, which memory stores and an indexer have beside them.
ENGINE: Final = ("engine down", "engine late", "engine breaks off", "engine answers twice")

#: By what a request may find nobody who serves it.
UNSERVED: Final = (*CALLS, *INDEX, *POWER, *DISK, *NODES, *MORE_NODES, *ENGINE, "restore", *SUDDEN[:2], "hang worker")

#: Agents of a world from its beginning; those that join it are numbered from here on.
MOST_AGENTS: Final = 10

#: Seconds of a poll that nothing ends before what it waits for.
_LONG: Final = 300.0


@frozen
class Fault:
    """``start`` and ``seconds`` on trio's clock; ``node`` and ``worker`` count from 0 (a worker modulo how many there
    are); ``share`` of the calls or connections; ``amount``: bytes, seconds or whatever the kind needs. ``alone``: it
    is this worker's calls alone that meet it, of an indexer this node's; else those of the whole node, of an indexer
    everybody's."""

    number: int
    kind: str
    start: float
    seconds: float = 0.0
    node: int = 0
    worker: int = 0
    place: str = ""
    share: float = 1.0
    amount: float = 0.0
    alone: bool = False

    def __str__(self) -> str:
        where = self.place or f"node {self.node}"
        return f"#{self.number} {self.kind} ({where}) at {self.start:.2f} for {self.seconds:.1f}"


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
        reloads = "reload" in kinds or self.features.reloads
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
        faults.append(_fault(rng, number, *rng.choice(chosen), seconds, nodes, near))
    more = Random(f"more {seed}")
    features = choose_features(more, seed)
    features = _with_needed(features, stores)
    faults += _more_faults(more, len(faults), stores, seconds, nodes)
    if features.many_posts and not keeps_posted:  # what is held in memory is given back meanwhile
        slow = _fault(more, len(faults), "call", "slow", seconds, nodes, None)
        faults.append(evolve(slow, place="commands.claim" if stores == "memory" else "commands", amount=4.0))
    outlasts_polls = features.revokes_copies or features.set_back or features.fails_last
    waits_for_freed = (features.dies_with_rights and keeps_posted and workers > 1) or features.dies_with_claims
    shares_claims = stores == "indexer" and nodes * workers > 1 and features.held_claims
    late = Random(f"late {seed}")
    for family, kind, changes in _feature_faults(late, features, stores, seconds, (nodes, workers), keeps_posted):
        fault = _fault(late, len(faults), family, kind, seconds, nodes, None)
        fault = evolve(fault, **changes)
        faults.append(evolve(fault, seconds=min(fault.seconds, seconds - fault.start)))
    # What features wait for needs processes that live for a while.
    is_calm = outlasts_polls or (shares_claims and Random(f"calm {seed}").random() < 0.5)
    left_out = (*(RESTARTS if is_calm else ()), *(UNSERVED if features.only_reloads else ()))
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
        batch_wait=rng.choice([0.0, 0.15, 1.0]),
        eager=rng.random() < 0.7,
        poison=max(rng.choice([0.0, 0.03, 0.2]), 0.2 if features.small_shares or features.small_bodies else 0.0),
        together=rng.random() < 0.3,
        short_tokens=rng.random() < 0.3 and not features.revokes_copies,
        rekeys=rng.random() < 0.4 or features.earlier_keys,
        removals=(rng.random() < 0.4 and not features.prunes) or features.removes_amid_faults,
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


def _with_needed(features: Features, stores: str) -> Features:
    """What features need besides, and what would hide what they are for."""
    if features.dies_with_rights:
        features = evolve(features, many_posts=True)
    if features.revokes_copies:
        features = evolve(features, rotates=True)
    if features.settled_groups:
        features = evolve(features, set_groups=True)
    if features.crossed_notes:  # a version before notes what it is told, and others take an agent's commands
        features = evolve(features, set_groups=True, upgrades=False, thieves=False)
    if features.only_hangs:
        features = evolve(features, many_posts=True)
    if features.expires_late:  # of an indexer it is requests that fail, whatever they are for
        has_fault = stores != "indexer" and not (features.only_hangs or features.only_reloads)
        features = evolve(features, expires_late=has_fault)
    if features.prunes:  # an earlier version keeps no ages
        features = evolve(features, prunes=stores == "embedded" and not features.upgrades)
    if features.prunes:  # who was away for some of its days would have no documents any more
        features = evolve(features, removes_amid_faults=False)
    if features.small_quota:
        features = evolve(features, small_quota=stores == "embedded" and not features.upgrades)
    if features.crowd:  # which goes at once, too, and that is told of all of it together
        features = evolve(features, short_times=True, presence=False)
    if features.small_room:
        features = evolve(features, small_bodies=True)
    if features.set_back:  # memory stores have a clock of their own
        features = evolve(features, set_back=stores != "memory")
    if features.set_back:
        features = evolve(features, last_words=True, limits_change=False, held_claims=False, fails_last=False)
    if features.fails_last:  # it is their own polls that last on
        features = evolve(features, last_words=True, limits_change=False, presence=False)
    if features.dies_with_claims:
        features = evolve(features, dies_with_claims=stores == "embedded" and not features.set_back)
    if features.dies_with_claims:
        features = evolve(features, last_words=True, limits_change=False, fails_last=False)
    return features


def _more_faults(rng: Random, first: int, stores: str, seconds: float, nodes: int) -> list[Fault]:
    """Of kinds that came later, in part of the seeds."""
    if stores == "embedded":
        return []
    kinds = [("engine", kind) for kind in ENGINE]
    kinds += [("indexer", kind) for kind in MORE_NODES * 2] if stores == "indexer" else []
    chosen = [kind for kind in kinds if rng.random() < 0.5] if rng.random() < 0.6 else []
    return [
        _fault(rng, first + number, *rng.choice(chosen), seconds, nodes, None)
        for number in range(rng.randint(1, 4) if chosen else 0)
    ]


def _feature_faults(
    rng: Random, features: Features, stores: str, seconds: float, size: tuple[int, int], keeps_posted: bool
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """What belongs to features: families and kinds, and what isn't left to chance of each. ``size``: nodes, and
    workers of each."""
    nodes, workers = size[0], size[0] * size[1]
    if features.struck_at_delivery:
        at = {"start": rng.uniform(2.0, seconds * 0.9), "seconds": 10.0, "share": 1.0}
        if stores == "embedded" and rng.random() < 0.5:
            number = METHODS.index("commands.mark_sent") / 1000
            yield "sudden", "power cut", at | {"amount": number, "alone": True}
        else:
            yield "call", "told to stop", at | {"place": "commands.mark_sent", "amount": rng.choice([0.01, 0.3])}
    if features.dies_with_rights and workers > 1:
        share, amount = rng.choice([0.3, 1.0]), rng.choice([0.0, 1.0])
        if keeps_posted:  # with what it has claimed, which the agent's copy waits for at another worker, and no news
            at = {"start": seconds - 5.0, "seconds": 5.0, "share": share, "alone": False, "amount": 0.0}
            yield "call", "die", at | {"place": "commands.mark_sent"}
        else:
            yield "call", "die", {"place": "commands.claim", "share": share, "amount": amount}
    if features.held_claims and stores == "indexer" and workers > 1:
        # Bytes, and the share of 20 s for which the rest is held up.
        bytes_and_seconds = rng.choice([0, 40, 300]) + rng.uniform(0.3, 1.0)
        start = rng.uniform(1.0, seconds / 2)
        yield "network", "hold", {"start": start, "seconds": 20.0, "share": 0.7, "amount": bytes_and_seconds}
        if nodes > 1 and rng.random() < 0.8:  # by more all commands would have ended there
            yield "sudden", "clock jump", {"start": 0.5, "amount": rng.choice([-30.0, 30.0])}
    if features.removes_amid_faults:
        start = rng.uniform(3.0, seconds / 2)
        kind = rng.choice(["fail", "lose answer"])
        yield "call", kind, {"start": start, "seconds": 12.0, "place": "agents", "share": 0.4, "alone": False}
    if features.only_reloads:
        yield "network", "hold", {"start": 1.0, "seconds": seconds, "share": 0.4, "amount": rng.uniform(40.0, 300.0)}
        for _ in range(3):
            yield "sudden", "reload", {}
    if features.crossed_notes and stores == "embedded" and workers > 1:
        # Its agents come to another worker meanwhile, which notes what it delivers at once.
        at = {"start": 1.0, "seconds": seconds, "share": 1.0, "alone": True}
        yield "call", "slow", at | {"place": "commands.mark_sent", "amount": rng.choice([2.0, 4.0])}
    if features.struck_once_answered and stores == "embedded":
        at = {"start": rng.uniform(2.0, seconds * 0.9), "place": rng.choice(ANSWERED)}
        yield "sudden", "power cut", at | {"amount": rng.uniform(0.001, 0.03)}
        if rng.random() < 0.4:  # or with one of a stateless body's writes
            number = METHODS.index("engine.send_events") / 1000
            yield "sudden", "power cut", {"start": rng.uniform(2.0, seconds * 0.9), "amount": number, "alone": True}
    if features.dies_with_claims:  # of which many are made at the last tick
        at = {"start": floor(seconds) - 0.2, "seconds": 1.2, "share": 1.0, "alone": False}
        yield "call", "die", at | {"place": "commands.claim", "amount": WITH_RESULT}
    if features.expires_late:
        yield (
            "call",
            "fail",
            {"start": 0.0, "seconds": seconds, "place": "commands.expire", "share": 1.0, "alone": False},
        )
    if features.only_hangs:
        for number in range(4):
            start = seconds * (0.05 + 0.22 * number)
            yield "sudden", "hang worker", {"start": start, "seconds": rng.uniform(1.0, seconds * 0.15)}
    if features.set_back:
        # Until just after a tick, at which all look for commands, and before they end those whose time seems over.
        yield "sudden", "clock blip", {"start": floor(seconds) - 0.97, "seconds": 0.9701, "amount": 1000.0}
    elif features.fails_last:
        # Of the processes alone: the operator's tool isn't kept from sending.
        at = {"start": seconds - rng.uniform(1.5, 3.0), "seconds": 3.0, "share": 1.0, "alone": stores == "indexer"}
        yield "call", "fail", at | {"place": "commands.claim"}
    elif features.last_words and not features.dies_with_claims and rng.random() < 0.5:
        lasting = rng.uniform(0.2, 1.0)
        start = seconds - lasting - rng.uniform(0.0, 0.5)
        yield "sudden", "clock blip", {"start": start, "seconds": lasting, "amount": 1000.0}


def _fault(rng: Random, number: int, family: str, kind: str, seconds: float, nodes: int, near: float | None) -> Fault:
    start = rng.uniform(0.5, seconds * 0.9)
    if near is not None:
        start = min(near + rng.uniform(0.0, 3.0), seconds * 0.9)
    lasting = rng.choice([0.5, 3.0, 10.0, 25.0]) * rng.uniform(0.5, 1.5)
    place, amount = "", 0.0
    if family == "call":
        place = rng.choice(STORES) if rng.random() < 0.4 else rng.choice(METHODS)
        amount = rng.choice([0.01, 0.5, 4.0])
    elif family == "disk":
        place = "disk"
    elif family == "network":
        place = "network"
        amount = rng.choice([0, 1, 40, 300, 600, 2000]) + rng.random()
    elif family == "indexer":
        place = "indexer"
        amount = rng.randrange(3)
    elif family == "engine":
        place = "engine"
        amount = rng.choice([0.5, 4.0, 15.0])  # seconds until it answers
    elif family == "index":
        place = "index"
        amount = rng.randrange(4)
    elif kind == "clock jump":
        amount = rng.choice([-30.0, -2.0, 2.0, 30.0, 1000.0])
    elif kind == "clock blip":
        amount = rng.choice([-30.0, 1000.0, 1000.0, 1000.0])
        lasting = rng.uniform(0.05, 1.0)
        if rng.random() < 0.5:  # no command comes after it by which what it made wrong would be put right
            start = seconds - lasting - rng.uniform(0.0, 0.5)
    else:
        amount = rng.uniform(0.2, 3.0)  # until it is started again
    return Fault(
        number=number,
        kind=kind,
        start=start,
        seconds=min(lasting, seconds - start),
        node=rng.randrange(nodes),
        worker=rng.randrange(8),
        place=place,
        share=rng.choice([0.2, 0.6, 1.0]),
        amount=amount,
        alone=rng.random() < 0.5,
    )
