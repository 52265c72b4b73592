"""Faults: of which kinds they are, and which of them a seed has when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import floor
from random import Random
from typing import Any, Final

from attrs import frozen

from tests.simulation.plans.features import Features

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
#: What a claim may meet besides: the polls leave that it is for, just when it is made.
LEFT: Final = ("polls leave",)
#: What a worker may meet while it starts, at a step.
STARTS: Final = ("start dies", "start fails", "start hangs")
#: What happens at a moment, to a node that is told several things at once.
TOLD: Final = ("reload and stop", "stop twice", "hang and stop")
#: By which a worker does nothing for a while, whatever waits for it.
HANGS: Final = ("hang worker", "start hangs", "hang and stop")
#: By which a process ends.
ENDS: Final = ("kill worker", "kill node", "stop node", "hang worker", "cut link", "die", *STOPPED, *STARTS, *TOLD)
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
#: Likewise, of what an operator does.
TOLD_OPERATOR: Final = ("tool's commands.cancel", "tool's commands.add", "tool's agents.remove", "tool's agents.rekey")
#: What a process dies with that has the result of its call in its hands, and nothing where that has none: an amount.
WITH_RESULT: Final = 9.0  # by chance none has so much
#: What the index may say of a part of the documents.
INDEX: Final = ("passing",)

#: What happens to one of the indexer's nodes.
NODES: Final = ("indexer down", "indexer hangs", "indexer stale", "indexer primary moves")
#: Likewise: shards that searches don't reach, a node of ours that doesn't reach one, answers that come twice.
MORE_NODES: Final = ("indexer partial", "indexer split", "indexer answers twice")
#: What happens to one of its indices: an operator or a full disk keeps it from being written, it isn't open; and to
#: all calls: the larger ones are refused.
REFUSING: Final = ("index blocked", "index closed", "calls too large")
#: All that happens to an indexer.
INDEXER: Final = (*NODES, *MORE_NODES, *REFUSING)
#: What happens to the engine, which memory stores and an indexer have beside them.
ENGINE: Final = ("engine down", "engine late", "engine breaks off", "engine answers twice")
#: Likewise: it has too much to do, and says so in one of its ways, which is no refusal.
BUSY: Final = ("engine busy",)

#: By what a request may find nobody who serves it.
UNSERVED: Final = (
    *(*CALLS, *INDEX, *POWER, *DISK, *INDEXER, *ENGINE, *BUSY),
    *("restore", *SUDDEN[:2], "hang worker"),
)


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


def more_faults(rng: Random, first: int, stores: str, seconds: float, nodes: int) -> list[Fault]:
    """Of kinds that came later, in part of the seeds."""
    if stores == "embedded":
        return []
    kinds = [("engine", kind) for kind in ENGINE]
    kinds += [("indexer", kind) for kind in MORE_NODES * 2] if stores == "indexer" else []
    chosen = [kind for kind in kinds if rng.random() < 0.5] if rng.random() < 0.6 else []
    return [
        make_fault(rng, first + number, *rng.choice(chosen), seconds, nodes, None)
        for number in range(rng.randint(1, 4) if chosen else 0)
    ]


def feature_faults(
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
    if features.at_once and not features.only_hangs:  # so that some wait behind others of their agent
        at = {"start": rng.uniform(1.0, seconds / 2), "seconds": 12.0, "place": "events.bulk", "alone": False}
        yield "call", "slow", at | {"share": 0.5, "amount": rng.uniform(0.5, 1.5)}
    if features.leaves_at_claim:
        at = {"start": 1.0, "seconds": seconds, "place": "commands.claim", "share": rng.choice([0.2, 0.5])}
        yield "call", LEFT[0], at | {"alone": False}
    if features.short_waits:  # some of it comes after all, when our side has given it up
        at = {"start": rng.uniform(1.0, seconds / 2), "seconds": 15.0, "share": 0.4}
        yield "network", rng.choice(["hold", "hold", "silent"]), at | {"amount": rng.choice([0, 40]) + rng.random()}
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
    if features.struck_after_operator and stores == "embedded":
        for _ in range(rng.choice([1, 2])):
            at = {"start": rng.uniform(1.0, seconds * 0.8), "place": rng.choice(TOLD_OPERATOR)}
            yield "sudden", "power cut", at | {"amount": rng.uniform(0.001, 0.03)}
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
    if features.silent_agent:
        yield "sudden", "clock jump", {"start": rng.uniform(1.0, seconds / 2), "amount": rng.choice([30.0, 1000.0])}
    if features.engine_busy and stores != "embedded":
        at = {"start": rng.uniform(1.0, seconds / 2), "seconds": seconds / 3, "share": 0.5}
        yield "engine", BUSY[0], at
    if features.refusing_indices:
        for _ in range(rng.randint(1, 3)):
            yield "indexer", rng.choice(REFUSING), {"share": rng.choice([0.5, 1.0])}
    if features.health_checks and not features.only_hangs:  # which are to notice it
        at = {"start": rng.uniform(1.0, seconds / 2), "seconds": 12.0, "share": 1.0, "alone": False}
        yield "call", rng.choice(["fail", "full"]), at | {"place": rng.choice(["events", "engine"])}
    if features.hard_starts:
        yield from hard_starts(rng, seconds)
    if features.set_back:
        # Until just after a tick, at which all look for commands, and before they end those whose time seems over.
        yield "sudden", "clock blip", {"start": floor(seconds) - 0.97, "seconds": 0.9701, "amount": 1000.0}
    elif features.fails_last:
        # Of the processes alone: the operator's tool isn't kept from sending.
        at = {"start": seconds - rng.uniform(1.5, 3.0), "seconds": 3.0, "share": 1.0, "alone": stores == "indexer"}
        yield "call", rng.choice(["fail", "slow"]), at | {"place": "commands.claim", "amount": rng.uniform(0.3, 2.0)}
    elif features.last_words and not features.dies_with_claims and rng.random() < 0.5:
        lasting = rng.uniform(0.2, 1.0)
        start = seconds - lasting - rng.uniform(0.0, 0.5)
        yield "sudden", "clock blip", {"start": start, "seconds": lasting, "amount": 1000.0}
    if features.health_checks and not features.only_hangs and rng.random() < 0.5:  # both are away
        at = {"start": rng.uniform(1.0, seconds / 2), "seconds": 12.0, "share": 1.0, "alone": False}
        for place in ("events", "engine"):
            yield "call", "fail", at | {"place": place, "node": 0}


def hard_starts(rng: Random, seconds: float) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Faults that strike workers while they start, with what makes some start just then; and nodes that are told
    several things at once."""
    for _ in range(rng.randint(1, 3)):
        start, kind = rng.uniform(1.0, seconds * 0.7), rng.choice(STARTS)
        step = rng.choice([0, 1, 2, 3, 4, 4])
        lasting = rng.choice([4.0, 12.0, 12.0] if kind == "start hangs" else [1.0, 4.0, 12.0])
        at = {"start": start, "seconds": lasting, "amount": float(step)}
        yield "start", kind, at | {"share": rng.choice([0.5, 1.0]), "alone": rng.random() < 0.7}
        for _ in range(rng.choice([1, 1, 2])):
            sudden = rng.choice(["reload", "reload", "kill worker", "hang worker"])
            yield "sudden", sudden, {"start": start + rng.uniform(0.0, 1.0), "seconds": 8.0}
    if rng.random() < 0.7:
        start, told = rng.uniform(2.0, seconds * 0.9), rng.choice(TOLD)
        # One that hangs does until it is killed, or faults end.
        yield "sudden", told, {"start": start / 2 if told == "hang and stop" else start}
        if told == "stop twice":  # with requests that would take their time
            at = {"start": start - 1.0, "seconds": 15.0, "share": 1.0, "alone": False}
            yield "call", "hang", at | {"place": rng.choice(["events.bulk", "engine.send_events"])}


def make_fault(
    rng: Random, number: int, family: str, kind: str, seconds: float, nodes: int, near: float | None
) -> Fault:
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
    elif family == "start":
        place = "start"
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
