"""The fleet at work: every request has a planned moment, and begins then, however the node fares.

An agent's requests of one kind follow each other, as its loops do. One that is late because the one before took so long
counts from the moment that it was planned for: a slow node can't hide behind the requests that it kept from being made.
"""

from __future__ import annotations

import heapq
import json
import random
import time
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Final, Protocol

import trio
from attrs import frozen

from wazuh_comms_trio.cli.fleet.connection import ExchangeFailed, Node, Reply, exchange
from wazuh_comms_trio.cli.fleet.host import Host
from wazuh_comms_trio.cli.fleet.mix import Mix
from wazuh_comms_trio.cli.fleet.requests import Request, RequestMaker, token_life
from wazuh_comms_trio.cli.fleet.tally import Kind, Tally, Timeline, over_slow_link
from wazuh_comms_trio.foundation.timestamps import to_iso

__all__ = ["Fleet", "Pace"]

#: Seconds: agents give up on a poll after 11 to 15 min, on anything else after a minute.
_POLL_LIMIT: Final = 13 * 60.0
_LIMIT: Final = 60.0
#: After a success or a 408 a loop sleeps so long before it asks again.
_PAUSE: Final = 1.0
#: So long before its end a token is renewed, and so long it is good where it can't be read.
_RENEW_BEFORE: Final = 2.0
_TOKEN_LIFE: Final = 900.0
#: Two requests of a loop are apart by what the mix says, give or take.
_JITTER: Final = 0.05


class Ask(Protocol):
    """How a request is made: ``connection.exchange``, or what stands in for it: raises ``ExchangeFailed``."""

    async def __call__(
        self, node: Node, head: bytes, body: bytes, *, time_limit: float, bytes_per_second: int | None
    ) -> Reply: ...


@frozen
class Pace:
    """How a fleet begins: ``ramp`` seconds, over which the first log-ins are spread. ``blind``: replies aren't read,
    for a server that only answers; a poll is then a request in so many seconds, as it would be where polls end."""

    ramp: float
    blind: float | None = None


class Fleet:
    def __init__(
        self,
        node: Node,
        hosts: list[Host],
        mix: Mix,
        pace: Pace,
        *,
        rng: random.Random,
        wall_clock: Callable[[], float] = time.time,
        ask: Ask = exchange,
    ) -> None:
        self.hosts = hosts
        self.tally = Tally()
        self.timeline = Timeline()
        self._node = node
        self._ask = ask
        self._mix = mix
        self._pace = pace
        self._rng = rng
        self._wall_clock = wall_clock
        self._requests = RequestMaker(mix, node.host, f"{rng.getrandbits(32):08x}")
        self._every = {Kind.STATELESS: mix.stateless.every, Kind.STATEFUL: mix.stateful.every}
        self._every[Kind.FILE] = mix.files.every
        self._numbers = count()
        #: When a request may begin, a number, whose it is, its kind, of which life, and when it was planned.
        self._due: list[tuple[float, int, Host, str, int, float]] = []
        self._nap = trio.CancelScope()
        #: Requests under way (polls aside), and when they were planned.
        self._under_way: dict[int, float] = {}
        #: Faults of the mix that were to come and haven't yet.
        self._outstanding = {"herd"} if mix.faults.herd.every else set()
        if any(host.is_flapping for host in hosts):
            self._outstanding.add("flapping")

    @property
    def outstanding(self) -> tuple[str, ...]:
        """The mix's faults in time of which no agent has come back yet: `herd`, `flapping`."""
        return tuple(sorted(self._outstanding))

    @property
    def parked(self) -> int:
        return sum(host.parked for host in self.hosts)

    @property
    def logged_in(self) -> int:
        return sum(host.logged_in for host in self.hosts)

    def unanswered(self) -> tuple[int, float]:
        """How many requests are under way, and for how many seconds the oldest has been."""
        now = trio.current_time()
        return len(self._under_way), max((now - planned for planned in self._under_way.values()), default=0.0)

    def begin_anew(self) -> Tally:
        """A new tally from now on; returns the one before."""
        before, self.tally = self.tally, Tally()
        return before

    async def run(self) -> None:
        """Makes the agents' requests, until cancelled, which ends all connections."""
        now = trio.current_time()
        for host in self.hosts:
            self._plan_log_in(host, now + self._rng.uniform(0, self._pace.ramp))
        async with trio.open_nursery() as nursery:
            if self._mix.faults.herd.every:
                nursery.start_soon(self._outages)
            for host in self.hosts:
                if host.is_flapping:
                    nursery.start_soon(self._flap, host)
            while True:
                now = trio.current_time()
                while self._due and self._due[0][0] <= now:
                    may_begin, _, host, kind, life, planned = heapq.heappop(self._due)
                    if life == host.life and not (is_log_in(kind) and planned != host.log_in_planned):
                        nursery.start_soon(self._perform, host, kind, planned, may_begin)
                with trio.CancelScope(deadline=self._due[0][0] if self._due else inf) as self._nap:
                    await trio.sleep_forever()

    def _plan(self, host: Host, kind: str, planned: float) -> None:
        may_begin = max(planned, trio.current_time())
        heapq.heappush(self._due, (may_begin, next(self._numbers), host, kind, host.life, planned))
        self._nap.deadline = min(self._nap.deadline, may_begin)

    def _plan_log_in(self, host: Host, when: float) -> None:
        """Plans a log-in in place of the one that was planned."""
        host.log_in_planned = when
        self._plan(host, Kind.LOG_IN if host.logged_in else Kind.FIRST_LOG_IN, when)

    def _plan_loops(self, host: Host, when: float) -> None:
        """The agent's loops, each at some moment of its round."""
        host.has_loops = True
        for kind, every in self._every.items():
            if every:
                self._plan(host, kind, when + self._rng.uniform(0, every))
        if self._mix.polls:
            self._plan(host, Kind.POLL, when + self._rng.uniform(0, self._pace.blind or 0))

    # --- faults ---

    async def _flap(self, host: Host) -> None:
        flapping = self._mix.faults.flapping
        while True:
            await trio.sleep(flapping.up * self._rng.uniform(0.5, 1.5))
            host.cut_off()
            await trio.sleep(flapping.down * self._rng.uniform(0.5, 1.5))
            self._bring_back(host)
            self._outstanding.discard("flapping")

    async def _outages(self) -> None:
        herd = self._mix.faults.herd
        while True:
            await trio.sleep(herd.every)
            for host in self.hosts:
                host.cut_off()
            await trio.sleep(herd.down)
            for host in self.hosts:
                self._bring_back(host)
            self._outstanding.discard("herd")

    def _bring_back(self, host: Host) -> None:
        host.cut_off()  # whoever brought it back before
        self._plan_log_in(host, trio.current_time())

    # --- one request ---

    async def _perform(self, host: Host, kind: str, planned: float, may_begin: float) -> None:
        began, life, number = trio.current_time(), host.life, next(self._numbers)
        self.tally.late.add(began - may_begin)
        self.timeline.late(began - may_begin)
        is_poll = kind == Kind.POLL
        label = over_slow_link(kind) if host.is_slow and not is_poll else kind
        if not is_poll:
            self._under_way[number] = planned
        with trio.CancelScope() as scope:
            host.requests.add(scope)
            host.parked = host.parked or is_poll
            cause, reply = "", Reply(0)
            try:
                head, body = self._request(host, kind)
                slow = self._mix.faults.slow_links.bytes_per_second if host.is_slow else None
                limit = _POLL_LIMIT if is_poll else _LIMIT
                reply = await self._ask(self._node, head, body, time_limit=limit, bytes_per_second=slow)
            except ExchangeFailed as error:
                cause = str(error)
            finally:
                host.requests.discard(scope)
                self._under_way.pop(number, None)
                if is_poll:
                    host.parked = False
        if host.life != life:
            return  # it was cut off
        now = trio.current_time()
        cause = cause or self._judge(host, kind, reply)
        if cause:
            self.tally.failed(label, cause)
            self.timeline.failed()
            self._try_again(host, kind, reply.status, now)
        else:
            self.tally.done(label, reply.status, now - planned)
            self.timeline.done(None if is_poll or host.is_slow else now - planned)
            self._follow(host, kind, reply, planned, now)

    def _judge(self, host: Host, kind: str, reply: Reply) -> str:
        """What is wrong with a reply; nothing: an agent is served by it. A log-in's token is the host's from now on."""
        if kind == Kind.POLL and reply.status == 408:  # nothing came
            return ""
        if kind == Kind.FILE and reply.status == 404:  # which the report tells
            return ""
        if not 200 <= reply.status < 300:
            return f"status {reply.status}"
        if is_log_in(kind):
            try:
                self._take_token(host, reply)
            except (ValueError, LookupError, TypeError):
                return "a log-in without a token"
        return ""

    def _try_again(self, host: Host, kind: str, status: int, now: float) -> None:
        if is_log_in(kind):
            self._plan_log_in(host, now + self._mix.retry)
            return
        if status in (401, 403) and host.log_in_planned > now:
            self._plan_log_in(host, now)
        self._plan(host, kind, now + self._mix.retry)

    def _request(self, host: Host, kind: str) -> Request:
        match kind:
            case Kind.STATELESS:
                return self._requests.stateless(host.token, host.metadata)
            case Kind.STATEFUL:
                timestamp = to_iso(self._wall_clock())
                request = self._requests.stateful(host.token, host.metadata, host.events_sent, timestamp)
                host.events_sent += self._mix.stateful.events
                return request
            case Kind.POLL:
                return self._requests.poll(host.token)
            case Kind.FILE:
                return self._requests.file(host.token)
            case Kind.REPORT:
                host.reporting = len(host.to_report)
                return self._requests.report(host.token, host.metadata, host.to_report)
            case _:
                return self._requests.log_in(host.member.uuid, host.member.key)

    def _follow(self, host: Host, kind: str, reply: Reply, planned: float, now: float) -> None:
        """What comes after a request that was served."""
        if is_log_in(kind):
            if not host.has_loops:
                self._plan_loops(host, now)
        elif kind == Kind.REPORT:
            host.to_report = host.to_report[host.reporting :]
            if host.to_report:
                self._plan(host, kind, now)
        elif kind == Kind.POLL:
            self._plan(host, kind, now + _PAUSE if self._pace.blind is None else planned + self._pace.blind)
            if self._pace.blind is None and (ids := command_ids(reply.body)):
                self.tally.commands += len(ids)
                if not host.to_report:
                    self._plan(host, Kind.REPORT, now)
                host.to_report += ids
        else:
            every = self._every[kind] * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
            self._plan(host, kind, planned + every)

    def _take_token(self, host: Host, reply: Reply) -> None:
        """Reads the token of a log-in's reply. Raises ``ValueError``, ``LookupError``, ``TypeError``."""
        token, life = "blind", _TOKEN_LIFE
        if self._pace.blind is None:
            token = json.loads(reply.body)["token"]
            life = token_life(token, self._wall_clock)
        if not host.logged_in:  # as if the fleet had been there for long: their tokens end at any moment
            life *= self._rng.uniform(0, 1)
        host.token, host.logged_in = token, True
        self._plan_log_in(host, trio.current_time() + max(_PAUSE, life - _RENEW_BEFORE))


def is_log_in(kind: str) -> bool:
    return kind in (Kind.LOG_IN, Kind.FIRST_LOG_IN)


def command_ids(body: bytes) -> list[str]:
    """The ids of the commands in the reply to a poll; none for what isn't of its form."""
    try:
        return [str(command["document_id"]) for command in json.loads(body)["commands"]]
    except (ValueError, LookupError, TypeError):
        return []
