"""Which of the indexer's nodes takes the next request: pure decisions on trio's clock, no I/O.

A node that failed rests, longer each time; one that has been silent for a while, or has just answered 502 to 504, is
passed over while others are well. When none is well, the one that has rested longest is tried again at most once a
``PROBE_INTERVAL``, by one request at a time; the others fail at once. So an outage costs little, and its end is noticed
within a second, or within ``SILENCE`` where requests from before are still waited for.

A firewall or a balancer in between may forget connections and say nothing: what was asked on one of these is never
answered, though the node is well. So an answer tells of requests that are much older, too: they are *overtaken*. It
tells of another node's as well where that one is silent: it is passed over, and has nothing to answer any more. What
is of a kind that has been slow isn't taken for lost.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, TypeVar

import trio
from attrs import define, field

from wazuh_comms_trio.foundation.backoff import pause_after
from wazuh_comms_trio.foundation.log_context import format_address
from wazuh_comms_trio.http.client.connection import HttpFailure

#: Seconds a node rests after its first failure; doubles with each more, up to the longest.
FIRST_REST: Final = 0.5
LONGEST_REST: Final = 30.0
#: Seconds between attempts while no node answers.
PROBE_INTERVAL: Final = 0.8
#: Seconds after which a node with unanswered requests, that has answered none meanwhile, is passed over.
SILENCE: Final = 4.0
#: Seconds for which a node that answers, but with 502 to 504, is asked only where no other one is well.
UNREADY_REST: Final = 1.0
#: A request is overtaken when one is answered that began so many seconds later.
OVERTAKEN: Final = 10.0
#: Seconds for which a kind of requests that took as long is known to be slow.
SLOW_FOR: Final = 300.0
#: Seconds for which it may be, after one was given up that somebody else asks again.
MAY_BE_SLOW_FOR: Final = 120.0

T = TypeVar("T")


class Overtaken(HttpFailure):
    """A request's answer is lost, as far as one can tell, while later ones are given."""


def kind_of(method: str, target: str) -> str:
    """What a request has in common with those that are as slow: all but ids. Of these kinds there are few."""
    parts = target.partition("?")[0].split("/")
    end = next((place for place, part in enumerate(parts) if part.startswith("_")), len(parts))
    return f"{method} {'/'.join(parts[: end + 1])}"


def is_change(method: str, target: str) -> bool:
    """Whether a request changes one document, or an index, whatever was there. Where it is given up while it is only
    slow it may still take place, after its repetition and what came later."""
    return method in ("PUT", "DELETE") or "/_update/" in target


@define(eq=False)
class Host:
    """One node and what is known of its health. Moments are trio's clock."""

    name: str
    port: int
    failures: int = 0
    failed_at: float = -1e9
    rests_until: float = 0.0
    tried_at: float = -1e9
    waiting: int = 0
    silent_since: float | None = None
    unready_until: float = 0.0
    #: When what may be given up began, the oldest first.
    _began: dict[trio.CancelScope, float] = field(factory=dict)

    def __str__(self) -> str:
        return format_address((self.name, self.port))

    def is_silent(self, now: float) -> bool:
        return self.silent_since is not None and now - self.silent_since > SILENCE

    def begin(self, now: float) -> None:
        """A request goes there."""
        self.tried_at = now
        self.waiting += 1
        if self.silent_since is None:
            self.silent_since = now

    async def unless_overtaken(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask``, which begins one request, returns or raises; it is cancelled, and ``Overtaken`` raised, when
        the request is overtaken."""
        with trio.CancelScope() as scope:
            self._began[scope] = trio.current_time()
            try:
                return await ask()
            finally:
                del self._began[scope]
        raise Overtaken("an answer seems to be lost: later requests are answered", sent=True, timed_out=True)

    def overtake(self, began: float) -> None:
        """A request that began at ``began`` was answered, here or elsewhere."""
        for scope, older in self._began.items():
            if began - older < OVERTAKEN:
                break
            scope.cancel()

    def answered(self, now: float, *, ready: bool = True) -> None:
        """A request was answered; ``ready``: not by 502 to 504."""
        self.waiting -= 1
        self.silent_since = now if self.waiting else None
        self.failures = 0
        self.rests_until = 0.0
        self.unready_until = 0.0 if ready else now + UNREADY_REST

    def failed(self, began: float, now: float, rng: random.Random) -> None:
        """A request that began at ``began`` failed; those that fail together count once."""
        self.waiting -= 1
        if not self.waiting:
            self.silent_since = None
        if self.failures and began <= self.failed_at:
            return
        rest = pause_after(self.failures, first=FIRST_REST, longest=LONGEST_REST)
        self.failures += 1
        self.failed_at = now
        self.rests_until = now + rest * rng.uniform(0.75, 1.25)

    def abandoned(self, began: float, now: float, rng: random.Random) -> bool:
        """A request was given up before it was answered. Returns whether that is a failure of the node: only of one
        that has been silent."""
        if self.is_silent(now):
            self.failed(began, now, rng)
            return True
        self.waiting -= 1
        if not self.waiting:
            self.silent_since = None
        return False


class SlowKinds:
    """Which kinds of requests are waited for as long as they may take."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    async def ask(self, host: Host, kind: str, ask: Callable[[], Awaitable[T]], *, patient: bool, again: bool) -> T:
        """What ``ask``, which sends a request of this kind to ``host``, returns or raises, or ``Overtaken``. It never
        is where the caller is ``patient``; ``again``: it sends the request again if it is."""
        began = trio.current_time()
        if not patient and began >= self._until.get(kind, began):
            try:
                return await host.unless_overtaken(ask)
            except Overtaken:
                if not again:  # somebody else will, and it may have been slow
                    self._note(kind, MAY_BE_SLOW_FOR)
                raise
        answer = await ask()
        if trio.current_time() - began > OVERTAKEN:
            self._note(kind, SLOW_FOR)
        return answer

    def _note(self, kind: str, seconds: float) -> None:
        self._until[kind] = max(trio.current_time() + seconds, self._until.get(kind, 0.0))


class Hosts:
    """All nodes of the indexer. ``rng`` spreads the rests of several daemons."""

    def __init__(self, addresses: Sequence[tuple[str, int]], rng: random.Random) -> None:
        self.all = [Host(name, port) for name, port in addresses]
        self.slow = SlowKinds()
        self._rng = rng
        self._turn = rng.randrange(len(self.all))  # several daemons don't all begin with the same node

    def choose(self, now: float, tried: Collection[Host] = ()) -> Host | None:
        """The next node in turn that is well and hasn't been tried for this request; else one that is slow; else one
        that isn't ready; else one that may be probed."""
        count = len(self.all)
        order = [self.all[(self._turn + step) % count] for step in range(count)]
        order = [host for host in order if host not in tried]
        well = [host for host in order if host.rests_until <= now]
        for host in well:
            # A node that failed is tried by one request at first, not by all that wait.
            if not host.is_silent(now) and host.unready_until <= now and not (host.failures and host.waiting):
                return self._take_turn(host)
        silent = [host for host in well if host.is_silent(now)]
        if silent:  # slow, perhaps, and there is nothing better
            return min(silent, key=lambda host: host.waiting)
        for host in well:
            if host.unready_until > now:
                return self._take_turn(host)
        if any(host.failures == 0 for host in self.all if host.rests_until <= now):
            return None  # others were tried for this request and are well: no need to disturb a resting one
        due = [host for host in order if now - host.tried_at >= (SILENCE if host.waiting else PROBE_INTERVAL)]
        return min(due, key=lambda host: host.tried_at, default=None)

    def _take_turn(self, host: Host) -> Host:
        self._turn = (self.all.index(host) + 1) % len(self.all)
        return host

    def answered(self, host: Host, began: float, now: float, *, ready: bool = True) -> None:
        """A request that began at ``began`` was answered by ``host``."""
        for each in self.all:
            if each is host or (ready and each.is_silent(now)):
                each.overtake(began)
        host.answered(now, ready=ready)

    def failed(self, host: Host, began: float, now: float) -> None:
        host.failed(began, now, self._rng)

    def abandoned(self, host: Host, began: float, now: float) -> bool:
        return host.abandoned(began, now, self._rng)
