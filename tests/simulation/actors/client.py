"""An agent's requests, each looked at: what it may be answered, and what not."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

import trio
from attrs import define

from tests.simulation.actors.keys import KEYS, REVOCATION
from tests.simulation.actors.room import is_no_room
from tests.simulation.determinism import EPOCH
from tests.simulation.forms.events import expected_results
from tests.simulation.model import IN_PROGRESS
from tests.simulation.plans.faults import BUSY, CALLS, DISK, HANGS, MORE_NODES, NODES, UNSERVED
from tests.simulation.trace import Violation
from wazuh_comms_trio.api.agent_api import base
from wazuh_comms_trio.services.commands.command_json import LARGEST_REPLY
from wazuh_comms_trio.testing.agent.client import AgentClient, token_expiry
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, Reply

if TYPE_CHECKING:
    from tests.simulation.nodes.network import Connection, SimStream
    from tests.simulation.world import World

__all__ = ["UNREAD", "OpenPoll", "SimClient", "is_held_up", "last_connection", "time_for"]

#: Faults of a connection on which an answer may take for ever.
SILENCING = ("hold", "silent", "slow reader", "forget", "leave")
#: Bytes of a reply beside its commands.
ROUND_COMMANDS = 64

#: Seconds beyond its time in which a request is answered: until its body is there, and its reply.
IN_TIME_SLACK = 5.0

#: Seconds by which a command may come after its time, and what may make that more.
TOO_LATE = 3.0
DELAYS = (*NODES, *MORE_NODES, "slow", "hang", *HANGS)

#: Seconds for which a post that no store keeps may be delivered that isn't waited for any more.
HELD_FOR = 5.0

#: Seconds in which what was claimed comes, or is given back.
HANDED_OVER = 3.0

#: By what a node may not be able to read the registry.
UNREAD = (*CALLS, *DISK, *HANGS, "indexer split")


@define(eq=False)
class OpenPoll:
    """A poll that is under way: since when (trio's clock), when its token ends (epoch seconds), and of which of its
    agent's keys that is, and which of the nodes' keys signed it (its id)."""

    since: float
    token_ends: float
    keys: int = 0
    signed_by: str = ""
    connection: Connection | None = None


_POLL: ContextVar[OpenPoll | None] = ContextVar("poll", default=None)
#: Those that were made for the request that this task makes.
_MADE: ContextVar[list[Connection]] = ContextVar("connections")
_PLACE: ContextVar[str] = ContextVar("place")


def key_of(token: str) -> str:
    """The id of the key that signed a token; empty of none."""
    head = token.partition(".")[0]
    return str(_part(head)["kid"]) if head else ""


def made_at(token: str) -> int:
    """When a token was made, by the clock of the node that did (epoch seconds)."""
    claims = _part(token.split(".")[1])
    return int(claims.get("auth_time", claims["iat"]))


@lru_cache(1000)
def _part(text: str) -> Mapping[str, Any]:
    part: dict[str, Any] = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return part


@lru_cache(1000)
def expiry_of(token: str) -> int:
    """Each request asks for its token's, which is some other one's as a rule."""
    return token_expiry(token)


def last_connection() -> Connection:
    """The one on which this task's last request was answered."""
    return _MADE.get()[-1]


def time_for(world: World, place: str) -> float | None:
    """Seconds: the route's, after those in which the registry has to say whose it is. None: of another kind."""
    times = world.config.communications_api.timeouts
    return {
        "POST authentication": times.authentication,
        "POST events/stateful": times.stateful,
        "POST events/stateless": times.authentication + times.stateless,
        "GET files": times.authentication + times.files,
        "POST vulnerability/scan": times.authentication + times.scan,
    }.get(place)


def is_held_up(world: World, connection: Connection) -> bool:
    """May an answer on it take for ever?"""
    fault = connection.fault
    return connection in world.silent or (fault is not None and fault.kind in SILENCING)


class _Impatient(ExchangeFailed):
    """The agent waited no longer."""


class SimClient(AgentClient):
    """On plain streams of the balancer; every exchange is looked at. ``first_token``: the first log-in is spared, as if
    it had been done a while ago."""

    def __init__(
        self,
        world: World,
        name: str,
        uuid: str,
        key: str,
        *,
        first_token: str | None,
        chunked: bool,
        clock_error: float = 0.0,
    ) -> None:
        super().__init__(
            self._connect_noting,
            uuid=uuid,
            key=key,
            name=name,
            chunked=chunked,
            wall_clock=lambda: world.agents_clock() + clock_error,
            tls=False,
        )
        self.world = world
        self.name = name
        self._first_token = first_token
        self.polls: dict[int, OpenPoll] = {}
        self.keys = self.token_keys = 0  # which of its keys is the agent's, and its token's
        self.rekeyed_at = self.removed_at = -1e9
        self.log_ins: list[float] = []  # when it asked for those that it was granted
        self.is_hasty = False  # it doesn't pause after failures, and is told so
        self.is_being_rekeyed = False
        self._numbers = count()

    async def _connect_noting(self) -> SimStream:
        stream = await self.world.balancer.connect(self.name)
        if (poll := _POLL.get()) is not None:
            poll.connection = stream.connection
        if stream.connection is not None:
            stream.connection.place = _PLACE.get()
            _MADE.get().append(stream.connection)
        return stream

    async def request(self, method: str, path: str, body: bytes | None = None, **options: Any) -> Reply:
        world, place = self.world, f"{method} {path.removeprefix('/api/v1/')}"
        world.requests += 1
        ahead = self.token is not None and made_at(self.token) > world.agents_clock() + 1
        world.trace.add(self.name, f"{place} {'' if body is None else len(body)}")
        number, began, keys = next(self._numbers), trio.current_time(), self.token_keys
        asked = world.in_flight.begin(self.uuid, place, is_upload=self._is_upload(body))
        reply: Reply | None = None
        token = "" if place == "POST authentication" else self.token or ""
        signed_by = key_of(token)
        poll: OpenPoll | None = None
        if place == "GET commands" and self.token is not None:
            _POLL.set(poll := OpenPoll(trio.current_time(), expiry_of(self.token), self.token_keys, signed_by))
            self.polls[number] = poll
        is_patient = not self.is_hasty or world.faults_ended is not None or not place.startswith("POST events")
        patience = inf if is_patient else world.plan.patience
        _MADE.set(made := [])
        _PLACE.set(place.partition("?")[0])
        try:
            with trio.move_on_after(patience) as limit:
                reply = await super().request(method, path, body, **options)
            if limit.cancelled_caught:  # what it sent may be under way still when it sends it again
                world.trace.add(self.name, f"{place} -> it waits no longer")
                raise _Impatient(place)
        except _Impatient:
            raise
        except ExchangeFailed as error:
            world.trace.add(self.name, f"{place} -> {str(error)[:60]}")
            if not (world.had_cause(100.0) or world.was_silenced(self.name, 100.0)):
                raise Violation("answers", f"{self.name}: {place} got no answer, without a cause: {error}") from None
            raise
        finally:
            self.polls.pop(number, None)
            world.in_flight.end(asked, None if reply is None else reply.status, made[-1] if made else None)
            self._check_in_time(place, made)
        world.trace.add(self.name, f"{place} -> {reply.status}")
        old_key = keys != self.keys and place != "POST authentication"
        taken = reply.status in (200, 204)
        if old_key and taken and self.is_old_key_refused(began):
            raise Violation("revoked", f"{self.name}: {place} -> {reply.status} with a token of its old key")
        if taken and world.is_revoked_everywhere(signed_by, began):
            raise Violation("revoked", f"{self.name}: {place} -> {reply.status} with a token of a revoked key")
        if taken and token and expiry_of(token) <= EPOCH + began and not world.had_wrong_clock(began):
            raise Violation("expired", f"{self.name}: {place} -> {reply.status} with a token that had expired")
        if place == "GET commands" and reply.status == 200:
            self._check_size(reply)
            if keys == self.keys:
                self._check_made(reply)
            self._check_wanted(reply, poll)
        expired = bool(token) and expiry_of(token) <= world.agents_clock()
        ended = signed_by in world.revoking or expired or world.had_wrong_clock(began)
        refusable = ahead or old_key or ended or self.is_being_rekeyed
        if reply.status in (429, 503) and not (reply.header("retry-after") or "").isdecimal():
            raise Violation("replies", f"{self.name}: {place} -> {reply.status}, and isn't told when to come again")
        if reply.status == 503 and body is not None and is_no_room(world, self.uuid, place, body, began):
            world.trace.strike("full share", place, self.name)
            return reply
        quota = world.quota_of(place)
        if reply.status == 503 and quota is not None and body is not None and quota.has_refused(self.uuid, body):
            return reply
        if reply.status == 429 and world.in_flight.may_be_too_many(asked, self.name):
            return reply
        self._check(place, reply, refusable or self._may_be_unknown(place, began))
        return reply

    def _is_upload(self, body: bytes | None) -> bool:
        return body is not None and (self.chunked or len(body) > base.TRANSFER_BYTES)

    def _check_in_time(self, place: str, made: Sequence[Connection]) -> None:
        """Whatever a store does, who asked has an answer by the end of its route's time. Also who got none."""
        limit = time_for(self.world, place.partition("?")[0])
        for connection in made:
            if limit is None or connection.taken is None or is_held_up(self.world, connection):
                continue
            seconds = trio.current_time() - connection.taken
            if seconds > limit + IN_TIME_SLACK and not self.world.had_cause(seconds, HANGS):
                raise Violation("in time", f"{self.name}: {place} took {seconds:.1f} s")

    def _may_be_unknown(self, place: str, began: float) -> bool:
        """Whether its agent may have been looked up before it had its new key, or was there again: of a log-in that was
        under way then. A token that is newer than what is remembered is read anew, or its request is 503."""
        return place == "POST authentication" and began < self.rekeyed_at

    def is_rekeyed_everywhere(self, moment: float) -> bool:
        """Whether every node knew the agent's new key at this moment: no fault kept it from reading the registry, which
        an indexer's clients remember for a while."""
        if self.world.plan.stores == "indexer":
            return moment > self.rekeyed_at + REVOCATION and not self.world.had_cause(30.0, UNREAD)
        return moment > self.rekeyed_at and not self.world.store_was_away("agents", 6.0)

    def is_old_key_refused(self, moment: float) -> bool:
        """Whether no request that began at this moment is served with a token of its old key. Without an indexer none
        is while the registry can't be read."""
        if self.world.plan.stores == "indexer":
            return self.is_rekeyed_everywhere(moment)
        return moment > self.rekeyed_at and not self.world.had_cause(30.0, HANGS)

    def _check(self, place: str, reply: Reply, refusable: bool) -> None:
        """``refusable``: the token has expired, by its own clock or the server's, was made by a server whose clock was
        ahead, or for a key of before."""
        status = reply.status
        if place.startswith("GET files") and status in (403, 404):  # another group's
            return
        if status in (200, 204) or (status == 408 and place == "GET commands"):
            return
        cause = self.world.had_cause(45.0) or self.world.was_silenced(self.name, 45.0)
        if status == 503 and self.world.plan.features.crowd and place == "POST authentication":
            return  # it is behind a crowd
        # Who is held up keeps the room that its body has.
        small_room = self.world.plan.features.small_room
        unserved = (*UNSERVED, *SILENCING) if small_room else UNSERVED
        if status >= 500 and (status != 503 or not self.world.left_unserved(place, 45.0, unserved)):
            raise Violation("no 5xx", f"{self.name}: {place} -> {status} {reply.body[:100]!r}")
        slow = status == 408 and self.world.holds_up_requests()
        if status in (401, 403) and refusable:
            return
        if status == 429 and place == "POST vulnerability/scan" and self.world.had_cause(45.0, BUSY):
            return  # the engine's own
        if status < 500 and not (slow and cause):
            raise Violation("replies", f"{self.name}: {place} -> {status} {reply.body[:100]!r}")

    async def authenticate(self) -> Reply:
        if (token := self._first_token) is not None:
            self._first_token, self.token = None, token
            return Reply(200, (), json.dumps({"token": token}).encode())
        keys, began = self.keys, trio.current_time()
        reply = await super().authenticate()
        if reply.status == 200:
            self.token_keys = keys
            self.log_ins.append(began)
        return reply

    def rekey(self) -> None:
        """The operator has given it another key."""
        self.keys += 1
        self.rekeyed_at = trio.current_time()
        self.is_being_rekeyed = False
        self.key = KEYS[self.keys % 2]

    async def post_stateful(self, events: Iterable[bytes]) -> Reply:
        batch = list(events)
        for event in batch:
            if b'"module":"command"' in event:
                self._note_report(event)
        reply = await super().post_stateful(batch)
        if reply.status == 200:
            expected = [(event, *result) for event in batch for result in expected_results(event)]
            wanted = [document_id for _, document_id, _ in expected]
            results = reply.json()["results"]
            got = [result["id"] for result in results]
            if wanted != got:
                raise Violation("own results", f"{self.name} sent {wanted} and was answered {got}")
            for (event, _, poisoned), result in zip(expected, results, strict=True):
                status = result["status"]
                if b'"module":"command"' in event:
                    self._check_report(result["id"], status)
                healed = b"poison!" in event and trio.current_time() >= self.world.plan.heals
                unlikely = b'"module":"command"' not in event and (status == 400) != poisoned and not healed
                if unlikely or status not in (200, 201, 400, 404, 409):
                    raise Violation("own results", f"{self.name} sent {event!r} and was answered {result}")
        return reply

    def _note_report(self, event: bytes) -> None:
        header, data = event.strip().split(b"\n")
        life = self.world.commands.get(json.loads(header)["id"])
        code = json.loads(data)["command"]["result"]["code"]
        if life is not None and life.first_final is None and code != IN_PROGRESS:
            life.begun_finals.setdefault(self.name, code)

    def _check_made(self, reply: Reply) -> None:
        """An agent that was removed and has come back isn't given what was sent to it before."""
        for command in reply.json()["commands"]:
            life = self.world.commands.get(command["document_id"])
            if life is not None and not life.posted and life.added < self.removed_at:
                raise Violation("removed", f"{self.name} has come back and is given {life.document_id}")

    def _check_size(self, reply: Reply) -> None:
        """An agent refuses a reply that is too large as a whole; its commands come in several then, in their order."""
        limit = self.world.plan.limits.get("LARGEST_REPLY", LARGEST_REPLY) + ROUND_COMMANDS
        if len(reply.body) > limit:
            raise Violation("reply size", f"{self.name} is given {len(reply.body)} bytes of commands at once")
        lives = [self.world.commands.get(command["document_id"]) for command in reply.json()["commands"]]
        numbers = [life.number for life in lives if life is not None and life.number]
        if numbers != sorted(numbers):
            raise Violation("command order", f"{self.name} is given {[life and life.document_id for life in lives]}")

    def _check_wanted(self, reply: Reply, poll: OpenPoll | None) -> None:
        """What the operator was told is cancelled doesn't come after that, nor does anything long after its time,
        unless it was on its way when its delivery was given up."""
        connection = None if poll is None else poll.connection
        if connection is None or connection.fault is not None or connection in self.world.silent:
            return
        for command in reply.json()["commands"]:
            life = self.world.commands.get(command["document_id"])
            if life is None:
                continue
            posted_again = life.posted and self.world.pruned.may_be_gone(life.document_id)
            if life.cancelled and not posted_again and not self.world.forgot_deliveries():
                raise Violation("cancelled", f"{self.name} is given {life.document_id}")
            since = trio.current_time() - life.group_cancelled
            if since > HANDED_OVER and not (self.world.forgot_deliveries() or self.world.had_cause(since + 30.0)):
                raise Violation("cancelled", f"{self.name} is given {life.document_id}, {since:.1f} s later")
            late = trio.current_time() - life.added - life.timeout
            on_its_way = self.world.had_cause(late, DELAYS) or self.world.had_wrong_clock(life.made)
            if late > TOO_LATE and not on_its_way:
                raise Violation("too late", f"{self.name} is given {life.document_id}, {late:.1f} s after its time")
            held = trio.current_time() - life.posted_until
            if held > HELD_FOR and not (self.world.stores.keeps_posted or self.world.had_cause(held, DELAYS)):
                raise Violation("too late", f"{self.name} is given {life.document_id}, {held:.1f} s after its post")
            life.came_whole = True

    def _check_report(self, document_id: str, status: int) -> None:
        """What came is reported on: it was offered, and that is known."""
        life = self.world.commands.get(document_id)  # none of the silent agent's, which nobody posts
        is_kept = self.world.stores.keeps_posted or life is None or not life.posted
        is_kept = is_kept and not self.world.pruned.may_be_gone(document_id)
        if status != 200 and (is_kept or status != 404):
            raise Violation("own reports", f"{self.name} reported on {document_id} and was answered {status}")
