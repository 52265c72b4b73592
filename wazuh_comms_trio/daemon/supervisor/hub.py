"""The hub: where the workers of one node meet. It knows messages and links, no process, no socket and no store.

Post               -> one worker, which stores the commands or holds them; its answer comes back the same way
NewCommands        -> every other worker: these agents may have commands
CommandsDelivered  -> every other worker; the hub remembers them until the commands' timeouts
HoldCommands       -> every other worker: commands that were posted and that no store keeps
AcquireCommands    -> answered by the hub: one worker alone may deliver a held command, until it returns it or dies
Finding            -> every other worker: what the leader saw in the store that all share
LeaderRequest      -> the leader: what another worker wants to be searched for
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Final

import trio
from attrs import define, field
from msgspec import UNSET

from wazuh_comms_trio.daemon.status import WorkerState
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.agent_questions import AgentQuestions
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken
from wazuh_comms_trio.daemon.supervisor.messages import JsonObject, Message, Unknown
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.caches.expiring_ids import ExpiringIds
from wazuh_comms_trio.metrics.snapshots import NodeMetrics

__all__ = ["Hub", "Member"]

logger = logging.getLogger(__name__)

#: Seconds from a post to its answer, at most; the worker that has the post answers earlier.
POST_LIMIT: Final = 1.95
#: The part of that which is left for the answer's way back.
POST_MARGIN: Final = 0.15
#: A worker that hasn't taken a post by then (seconds) is busy or hangs: the hub asks another one.
TAKEN_LIMIT: Final = 0.4
#: Commands whose delivery is remembered: an id and two numbers are some 250 bytes, at most 25 MB.
MAX_DELIVERED: Final = 100_000
#: Seconds between two health requests.
HEALTH_INTERVAL: Final = 1.5
#: A worker that has sent nothing for this long (seconds) gets posts and leadership only when no other one is there.
SILENT_AFTER: Final = 2.5


@define(eq=False)
class Member:
    """One worker, as the hub knows it. ``report`` is its last one, ``heard`` when it came (trio's clock)."""

    name: str
    link: Link
    generation: int = 0
    ready: trio.Event = field(factory=trio.Event)
    #: The worker's link has ended.
    left: trio.Event = field(factory=trio.Event)
    #: Why the worker couldn't start, in its own words.
    failure: str | None = None
    #: The worker takes posts: it is ready, and hasn't been told to stop.
    in_service: bool = False
    #: The worker knows leadership; one of an older version doesn't, and searches for itself alone.
    can_lead: bool = False
    report: JsonObject = field(factory=dict)
    #: The worker has looked at its stores since it was last asked to.
    refreshed: trio.Event = field(factory=trio.Event)
    #: The worker has said what it counted since it was last asked.
    counted: trio.Event = field(factory=trio.Event)
    heard: float = field(factory=trio.current_time)

    @property
    def state(self) -> WorkerState:
        if self.in_service:
            return "serving"
        return "stopping" if self.ready.is_set() else "starting"

    @property
    def awake(self) -> bool:
        return trio.current_time() - self.heard < SILENT_AFTER


@define(eq=False)
class _PendingPost:
    """A post that a member has been asked for."""

    member: Member
    answer: messages.PostAnswer | None = None
    taken: trio.Event = field(factory=trio.Event)
    decided: trio.Event = field(factory=trio.Event)


class Hub:
    def __init__(self) -> None:
        self.members: list[Member] = []
        self._delivered = ExpiringIds(MAX_DELIVERED)
        self._granted: dict[str, Member] = {}
        self._pending_posts: dict[int, _PendingPost] = {}
        self._numbers = count(1)
        self._changed = trio.Event()
        self.metrics: NodeMetrics = NodeMetrics()
        self.agent_questions: AgentQuestions = AgentQuestions()
        #: Workers that ended and weren't told to.
        self.restarts: int = 0
        #: The worker that searches the shared store for all.
        self._leader: Member | None = None
        self._drained = False
        #: The key that a generation signs with that has begun to start.
        self._next_key: messages.TrustKey | None = None
        #: Keys whose tokens aren't good any more: since when, by id.
        self._revoked_keys: dict[str, float] = {}

    # --- members

    async def run(self) -> None:
        """Asks the workers for their health, until cancelled."""
        while True:
            await sleep_until_next_tick(HEALTH_INTERVAL)
            for member in self.members:
                member.link.send_nowait(messages.HealthRequest())
                if member.ready.is_set():
                    member.link.send_nowait(messages.MetricsRequest())
            self.choose_leader()

    async def refresh(self, limit: float) -> None:
        """Has the members look at their stores, and waits for their reports, at most ``limit`` seconds."""
        with trio.move_on_after(limit):
            asked = [member for member in self.members if member.in_service]
            for member in asked:
                if member.refreshed.is_set():  # else somebody else waits for the same
                    member.refreshed = trio.Event()
                member.link.send_nowait(messages.HealthRequest(look=True))
            for member in asked:
                await member.refreshed.wait()

    async def refresh_metrics(self, limit: float) -> None:
        """Asks the workers what they have counted, and waits for their answers, at most ``limit`` seconds."""
        with trio.move_on_after(limit):
            asked = [member for member in self.members if member.in_service]
            for member in asked:
                if member.counted.is_set():
                    member.counted = trio.Event()
                member.link.send_nowait(messages.MetricsRequest())
            for member in asked:
                await member.counted.wait()

    async def ask_about(self, agent_id: str, limit: float) -> list[JsonObject]:
        """Asks each worker what it knows of an agent."""
        links = [member.link for member in self.members if member.in_service]
        return await self.agent_questions.ask(agent_id, links, limit)

    @property
    def has_leader(self) -> bool:
        return self._leader is not None

    async def serve(self, member: Member, on_ready: Callable[[messages.Ready], None] | None = None) -> None:
        """Carries one member's messages until its link ends. The link's ``run`` is the caller's."""
        with self._joined(member):
            try:
                while True:
                    self._handle(member, await member.link.receive(), on_ready)
            except LinkBroken as error:
                logger.debug("the link to worker %s ended: %s", member.name, error)

    @contextmanager
    def _joined(self, member: Member) -> Iterator[None]:
        self.members.append(member)
        if self._next_key is not None:
            member.link.send_nowait(self._next_key)
        try:
            yield
        finally:
            self.members.remove(member)
            self.dismiss(member)
            member.left.set()
            member.refreshed.set()
            member.counted.set()
            self.metrics.ended(member.name)
            self._free(member, [document_id for document_id, owner in self._granted.items() if owner is member])
            for pending in list(self._pending_posts.values()):
                if pending.member is member:
                    pending.taken.set()
                    pending.decided.set()
            self._note_change()

    def drain(self, on: bool) -> None:
        """Tells all workers, also those that come, whether the node is drained: while ``on``, none is ready."""
        self._drained = on
        self.tell_all(messages.Drain(on=on))

    def tell_all(self, message: Message) -> None:
        """Sends a message to every worker that serves or stops."""
        for member in self.members:
            if member.ready.is_set():
                member.link.send_nowait(message)

    def revoke_keys(self, keys: Mapping[str, float]) -> None:
        """Tells all workers, also those that come, of revoked keys: by id, since when."""
        self._revoked_keys.update(keys)
        if keys:
            self.tell_all(messages.RevokeKeys(keys=dict(keys)))

    def trust_key(self, public_key: str) -> None:
        """Tells all workers, also those that start or come, of a key (PEM) that tokens may be signed with from now on:
        one that serves earlier than the others of its generation hands them out at once."""
        self._next_key = messages.TrustKey(public_key=public_key)
        for member in self.members:
            member.link.send_nowait(self._next_key)

    @property
    def parked(self) -> int:
        """How many polls are parked on all workers, as they last said."""
        return sum(member.report.get("parked", 0) for member in self.members)

    def dismiss(self, member: Member) -> None:
        """The worker that ends gets no posts any more, and isn't the leader."""
        member.in_service = False
        self.choose_leader()

    def choose_leader(self) -> None:
        """Makes a worker the leader that is awake, unless the leader is. Called when workers come and go, and with each
        health request."""
        awake = [each for each in self.members if each.in_service and each.awake and each.can_lead]
        if self._leader in awake or not (awake or self._leader not in self.members):
            return  # while no worker is awake, the leader stays
        # One of the newest generation, which will stay longest.
        before, self._leader = self._leader, max(awake, key=lambda each: each.generation, default=None)
        if self._leader is before:
            return  # there was none before, either
        for member in self.members:
            if member.ready.is_set():
                member.link.send_nowait(messages.LeaderChange(leader=member is self._leader))

    def _handle(
        self, member: Member, message: Message | Unknown, on_ready: Callable[[messages.Ready], None] | None
    ) -> None:
        member.heard = trio.current_time()
        match message:
            case messages.HealthReport():
                member.report = message.report
                if message.looked is True:
                    member.refreshed.set()
            case messages.MetricsReport():
                self.metrics.note(member.name, message.snapshot)
                member.counted.set()
            case messages.AgentAnswer():
                self.agent_questions.handle(message)
            case messages.Ready():
                member.in_service = True
                member.can_lead = message.duty
                member.ready.set()
                if on_ready is not None:
                    on_ready(message)
                self._send_leader(member)
                if self._drained:
                    member.link.send_nowait(messages.Drain(on=True))
                if self._revoked_keys:
                    member.link.send_nowait(messages.RevokeKeys(keys=dict(self._revoked_keys)))
            case messages.Failed():
                member.failure = message.reason
            case (
                messages.NewCommands()
                | messages.PollParked()
                | messages.HoldCommands()
                | messages.WithdrawCommands()
                | messages.Finding()
            ):
                self._tell_others(member, message)
            case messages.CommandsDelivered():
                for document_id, timeout in message.ids.items():
                    self._delivered.add(document_id, timeout)
                    self._granted.pop(document_id, None)
                self._tell_others(member, message)
            case messages.AcquireCommands():
                granted = self._grant(member, message.ids)
                member.link.send_nowait(messages.CommandsGranted(number=message.number, ids=granted))
            case messages.CommandsReturned():
                self._free(member, [each for each in message.ids if self._granted.get(each) is member])
            case messages.LeaderRequest():
                if self._leader is not None and self._leader is not member:
                    self._leader.link.send_nowait(message)
            case messages.PostTaken():
                if (pending := self._pending_posts.get(message.number)) is not None:
                    pending.taken.set()
            case messages.PostAnswer():
                if (pending := self._pending_posts.get(message.number)) is not None:  # else it comes too late
                    pending.answer = message
                    pending.taken.set()
                    pending.decided.set()
            case messages.Unknown(problem=None):
                logger.debug("worker %s sent a message of a later version: %s", member.name, message.kind)
            case messages.Unknown():
                logger.warning("worker %s sent a bad message: %s: %s", member.name, message.kind, message.problem)
            case _:
                logger.warning(
                    "worker %s sent what is the supervisor's to say: %s", member.name, type(message).__name__
                )

    def _send_leader(self, member: Member) -> None:
        before = self._leader
        self.choose_leader()
        if self._leader is before:
            member.link.send_nowait(messages.LeaderChange(leader=False))
        self._note_change()

    def _tell_others(self, member: Member, message: Message) -> None:
        for other in self.members:
            if other is not member:
                other.link.send_nowait(message)

    def _free(self, member: Member, document_ids: Sequence[str]) -> None:
        """The worker won't deliver these any more: another worker may."""
        for document_id in document_ids:
            del self._granted[document_id]
        if document_ids:
            self._tell_others(member, messages.CommandsFreed(ids=list(document_ids)))

    def _grant(self, member: Member, document_ids: Sequence[str]) -> list[str]:
        granted = []
        for document_id in document_ids:
            if document_id not in self._delivered and self._granted.setdefault(document_id, member) is member:
                granted.append(document_id)
        return granted

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- posts

    async def post(self, commands: Sequence[JsonObject]) -> list[JsonObject]:
        """As ``Posts.post``, by whichever worker takes it; when that one dies or hangs, by another.
        Raises ``BackendUnavailable``."""
        request = list(commands)
        ids = {command["document_id"]: command["timeout"] for command in request}
        delivered = {document_id: timeout for document_id, timeout in ids.items() if document_id in self._delivered}
        limit = trio.current_time() + POST_LIMIT
        asked: set[str] = set()
        with trio.move_on_at(limit):
            while True:
                member = await self._next_in_service(asked)
                asked.add(member.name)
                answer = await self._post_to(member, request, delivered, limit - POST_MARGIN)
                if answer is None:
                    continue  # the next one is asked, and what the last one had stored is known there
                if answer.error is not UNSET:
                    raise BackendUnavailable(answer.error)
                return [] if answer.commands is UNSET else answer.commands
        raise BackendUnavailable

    async def _next_in_service(self, asked: Collection[str]) -> Member:
        """``asked``: those that a post was left by."""
        while True:
            serving = [member for member in self.members if member.in_service]
            # Workers that are awake come first; but one that has just begun to hang can't be told from them, and may
            # have its turn again, since others post meanwhile.
            member = min(serving, key=lambda each: (not each.awake, each.name in asked), default=None)
            if member is not None:
                # The member goes to the end: posts are spread over the workers.
                self.members.remove(member)
                self.members.append(member)
                return member
            await self._changed.wait()

    async def _post_to(
        self, member: Member, commands: list[JsonObject], delivered: dict[str, float], limit: float
    ) -> messages.PostAnswer | None:
        """Posts to one worker; None when no answer is to be expected of it."""
        number = next(self._numbers)
        pending = self._pending_posts[number] = _PendingPost(member)
        try:
            seconds = limit - trio.current_time()
            post = messages.Post(
                number=number, commands=commands, delivered=delivered, seconds=seconds, sent=time.monotonic()
            )
            member.link.send_nowait(post)
            with trio.move_on_after(TAKEN_LIMIT):
                await pending.taken.wait()
            if pending.taken.is_set():
                await pending.decided.wait()
            return pending.answer
        finally:
            del self._pending_posts[number]
            if pending.answer is None:
                # Should the worker wake up: the poster won't hear of the post any more.
                member.link.send_nowait(messages.WithdrawPost(number=number))
