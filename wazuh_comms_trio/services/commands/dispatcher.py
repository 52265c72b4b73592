"""Commands on their way to agents: parked polls, deliveries, and what a poster is told.

One task looks for commands, for all agents that might have some, in one call of the store; polls only park and wait. A
poll parks first and is looked for then, and news are noted before they are looked after, so that no wake-up is lost. An
agent has one delivery at a time: until it is decided whether that arrived, nothing else goes to the same agent.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Final

import trio
from attrs import evolve

from wazuh_comms_trio.backends.interfaces import AgentRegistry, Command, CommandStore
from wazuh_comms_trio.errors import BackendUnavailable, TokenInvalid
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.environment import WallClock
from wazuh_comms_trio.foundation.outage_log import OutageLog
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.commands.deliveries import CommandDelivery, DeliveryOutcome, DeliveryRecorder
from wazuh_comms_trio.services.commands.long_polls import LongPoll, LongPolls
from wazuh_comms_trio.services.commands.other_workers import NO_OTHER_WORKERS, OtherWorkers
from wazuh_comms_trio.services.commands.posted_commands import DeliveredCommands, Post, PostedCommands

__all__ = ["CommandDelivery", "CommandDispatcher"]

_log = logging.getLogger(__name__)

#: Seconds from a post to its answer; the answer must be out at 2 s.
POST_LIMIT: Final = 1.8
#: Seconds between two looks after agents that were removed or rekeyed, and after commands whose time is over.
CHECK_INTERVAL: Final = 0.5
EXPIRY_INTERVAL: Final = 1.0

#: A poll's limit is varied by this share, so that a fleet that parked at once doesn't come back at once.
_POLL_LIMIT_VARIATION: Final = 0.1
#: Seconds between two handfuls of polls that are answered when the worker stops.
_CLOSING_STEP: Final = 0.02
#: Agents that one call of the store asks for, and commands that one delivery holds.
_AGENTS_PER_LOOKUP: Final = 500
_COMMANDS_PER_DELIVERY: Final = 100
#: After a failure of the store, seconds.
_FAILURE_PAUSE: Final = 1.0


class CommandDispatcher:
    def __init__(
        self,
        store: CommandStore,
        agents: AgentRegistry,
        *,
        poll_timeout: float,
        wall_clock: WallClock,
        rng: Random,
        other_workers: OtherWorkers = NO_OTHER_WORKERS,
    ) -> None:
        self._store = store
        self._agents = agents
        self._poll_timeout = poll_timeout
        self._wall_clock = wall_clock
        self._rng = rng
        self._other_workers = other_workers
        self._long_polls = LongPolls()
        self._recorder = DeliveryRecorder(store, rng, self._schedule_lookup)
        #: Agents with a delivery that isn't decided.
        self._in_delivery: set[str] = set()
        #: Agents to look for commands for.
        self._to_look_up: set[str] = set()
        self._lookup_wanted = trio.Event()
        self._decided = trio.Event()
        self._delivered = DeliveredCommands()
        self._posted = PostedCommands()
        self._posts: set[Post] = set()
        self._closing = trio.Event()

    # --- polls ---

    @property
    def parked(self) -> int:
        """How many polls wait now."""
        return len(self._long_polls)

    def poll_limit(self) -> float:
        """How long one poll may take: ``timeouts.commands`` ± 10 %, in seconds."""
        return self._poll_timeout * self._rng.uniform(1 - _POLL_LIMIT_VARIATION, 1 + _POLL_LIMIT_VARIATION)

    async def poll(self, caller: Caller, *, deadline: float) -> CommandDelivery | None:
        """None: nothing came (``deadline`` on trio's clock, the token's end, shutdown). Raises ``TokenInvalid`` when
        the agent was removed or rekeyed meanwhile. Cancelled: what was on its way to this poll goes to another."""
        end = min(deadline, trio.current_time() + caller.expires - self._wall_clock())
        if self._closing.is_set() or end <= trio.current_time():
            await trio.lowlevel.checkpoint()
            return None
        long_poll = LongPoll(caller.agent.id, caller.agent.fingerprint)
        self._long_polls.add(long_poll)
        try:
            self._schedule_lookup((long_poll.agent_id,))
            with trio.move_on_at(end):
                await long_poll.news.wait()
        except BaseException:
            if long_poll.delivery is not None:
                long_poll.delivery.release_nowait()
            raise
        finally:
            self._long_polls.remove(long_poll)
        if long_poll.revoked:
            raise TokenInvalid
        return long_poll.delivery

    # --- posts ---

    async def post(self, commands: Sequence[Command], *, within: float = POST_LIMIT) -> Sequence[Command]:
        """Those of ``commands`` whose delivery was confirmed before the answer, in order, and groups once their
        children are stored; commands for servers and those that aren't pending are left alone. Where the store
        doesn't keep posted commands, the rest is forgotten, but for what is being delivered just now. ``within``:
        seconds until the answer. Raises ``BackendUnavailable``."""
        ours = {
            command.document_id: command
            for command in map(_with_plain_id, commands)
            if command.target.type != "server" and command.status == "pending"
        }
        limit = trio.current_time() + min(within, POST_LIMIT)
        kept = [command for command in ours.values() if self._store.keeps_posted or command.target.type == "group"]
        with trio.CancelScope(deadline=limit) as scope:
            known = {command.document_id: command for command in (await self._store.add(kept) if kept else ())}
        if scope.cancelled_caught:
            raise BackendUnavailable
        stored_for = {command.target.id for command in known.values() if command.target.type == "agent"}
        self._schedule_lookup(stored_for)
        self._other_workers.news(stored_for)
        waiting = [command for command in ours.values() if self._is_open(known.get(command.document_id, command))]
        await self._wait_for_deliveries(waiting, limit)
        return [answer for command in ours.values() if (answer := self._answer(command, known)) is not None]

    def _is_open(self, command: Command) -> bool:
        """May it still be delivered? (``known``: as it is stored, where it is.)"""
        return (
            command.target.type == "agent"
            and command.status == "pending"
            and command.document_id not in self._delivered
        )

    def _answer(self, command: Command, known: dict[str, Command]) -> Command | None:
        stored = known.get(command.document_id, command)
        if stored.status != "pending":
            return stored if stored.sent_at is not None or stored.status in ("sent", "success") else None
        return evolve(stored, status="sent") if command.document_id in self._delivered else None

    async def _wait_for_deliveries(self, commands: Collection[Command], limit: float) -> None:
        if not commands:
            return
        post = Post({command.document_id for command in commands})
        in_memory = [] if self._store.keeps_posted else commands
        for command in in_memory:
            self._posted.hold(command)
        if in_memory:
            self._other_workers.hold(list(in_memory), max(0.0, limit - trio.current_time()))
        self._posts.add(post)
        self._schedule_lookup({command.target.id for command in in_memory})
        try:
            with trio.move_on_at(limit):
                await post.complete.wait()
        finally:
            self._posts.discard(post)
            for command in in_memory:
                self._posted.withdraw(command)
            if in_memory:
                self._other_workers.withdraw(list(in_memory))

    # --- what other workers say ---

    def handle_news(self, agent_ids: Collection[str]) -> None:
        """Another worker has news for these."""
        self._schedule_lookup(agent_ids)

    def handle_delivered(self, document_ids: Mapping[str, float]) -> None:
        """Another worker has delivered these, id -> timeout: posts that wait for them may be answered."""
        for document_id, timeout in document_ids.items():
            self._delivered.add(document_id, timeout)
        self._posted.delivered(self._posted.commands(document_ids))
        self._complete_posts(document_ids)

    def handle_freed(self, document_ids: Collection[str]) -> None:
        """Another worker had the right to deliver these, and has it no more."""
        self._schedule_lookup({command.target.id for command in self._posted.commands(document_ids)})

    def hold(self, commands: Sequence[Command]) -> None:
        """Another worker was posted these, and no store keeps them. Until ``withdraw``."""
        for command in commands:
            self._posted.hold(command)
        self._schedule_lookup({command.target.id for command in commands})

    def withdraw(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._posted.withdraw(command)

    # --- deliveries ---

    def _schedule_lookup(self, agent_ids: Collection[str]) -> None:
        """The store may have something for these agents: those with a parked poll are looked up."""
        self._to_look_up.update(agent_id for agent_id in agent_ids if agent_id in self._long_polls)
        if self._to_look_up:
            self._lookup_wanted.set()

    def _take_scheduled(self) -> set[str]:
        """The next to look for. One with a delivery is scheduled again when that is decided, one without a parked poll
        when it parks."""
        taken: set[str] = set()
        while self._to_look_up and len(taken) < _AGENTS_PER_LOOKUP:
            agent_id = self._to_look_up.pop()
            if agent_id in self._long_polls and agent_id not in self._in_delivery:
                taken.add(agent_id)
        return taken

    async def _look_up(self) -> None:
        outage = OutageLog(_log, "commands can't be looked for", clock=trio.current_time)
        while True:
            await self._lookup_wanted.wait()
            self._lookup_wanted = trio.Event()
            while agent_ids := self._take_scheduled():
                posted = self._posted.free(agent_ids)
                acquired = set(await self._other_workers.acquire(posted)) if posted else set[str]()
                try:
                    claimed = await self._store.claim(agent_ids)
                except Exception as exc:
                    _log_failure(outage, exc)
                    claimed = None
                self._deliver(agent_ids, claimed or (), acquired)
                if claimed is None:
                    self._schedule_lookup(agent_ids)
                    await trio.sleep(_FAILURE_PAUSE)
                else:
                    outage.worked()

    def _deliver(self, agent_ids: Collection[str], claimed: Sequence[Command], acquired: set[str]) -> None:
        """Deliveries for those agents that still have a poll; what nobody can take goes back. ``acquired``: the posted
        commands that are this worker's to deliver."""
        by_agent: dict[str, list[Command]] = {}
        again = []
        for command in claimed:
            if command.document_id in self._delivered:
                again.append(command.document_id)  # delivered as a post's, and now found in the store
            else:
                by_agent.setdefault(command.target.id, []).append(command)
        if again:
            self._recorder.schedule("sent", again)
        for agent_id in {*agent_ids, *by_agent}:
            stored = by_agent.get(agent_id, [])
            # One that was posted and is in the store, too, is delivered once: the store's.
            self._posted.delivered(stored)
            long_poll = self._long_polls.newest(agent_id)
            if long_poll is None or agent_id in self._in_delivery:
                if stored:
                    self._recorder.schedule("released", [command.document_id for command in stored], (agent_id,))
                continue
            posted = self._posted.take(agent_id, _COMMANDS_PER_DELIVERY - len(stored), acquired)
            acquired.difference_update(command.document_id for command in posted)
            commands = stored + posted
            if commands:
                self._in_delivery.add(agent_id)
                ids = frozenset(command.document_id for command in stored)

                def finish(
                    delivery: CommandDelivery, outcome: DeliveryOutcome, ids: frozenset[str] = ids
                ) -> trio.Event:
                    return self._finish_delivery(delivery, outcome, ids)

                self._long_polls.answer(long_poll, CommandDelivery(commands, finish))
        if acquired:
            self._other_workers.returned(self._posted.commands(acquired))

    def _finish_delivery(
        self, delivery: CommandDelivery, outcome: DeliveryOutcome, stored: frozenset[str]
    ) -> trio.Event:
        """A delivery is decided. ``stored``: those of its commands that were claimed from the store."""
        in_memory = [command for command in delivery.commands if command.document_id not in stored]
        if outcome == "sent":
            for command in delivery.commands:
                self._delivered.note(command)
            self._posted.delivered(in_memory)
            self._complete_posts([command.document_id for command in delivery.commands])
            self._other_workers.delivered(delivery.commands)
        else:
            self._posted.returned(in_memory)
            if in_memory:
                self._other_workers.returned(in_memory)
        agent_id = delivery.commands[0].target.id
        self._in_delivery.discard(agent_id)
        self._schedule_lookup((agent_id,))  # and again when the store has taken back what was released
        self._decided.set()
        return self._recorder.schedule(outcome, stored, (agent_id,))

    def _complete_posts(self, document_ids: Iterable[str]) -> None:
        delivered = set(document_ids)
        for post in self._posts:
            post.missing -= delivered
            if not post.missing:
                post.complete.set()

    # --- what runs ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Finds news, expires, drops polls of revoked agents. Ends after ``close``, once the deliveries in flight are
        decided and the store has been told, or hasn't been able to listen for some seconds."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._recorder.run)
            nursery.start_soon(self._look_up)
            nursery.start_soon(self._find_news)
            nursery.start_soon(_every, EXPIRY_INTERVAL, self._expire, "commands can't be expired")
            nursery.start_soon(_every, CHECK_INTERVAL, self._drop_revoked, "parked agents can't be checked")
            task_status.started()
            await self._closing.wait()
            while self._in_delivery:
                self._decided = trio.Event()
                await self._decided.wait()
            with trio.move_on_after(5) as scope:
                while not self._recorder.idle:
                    await self._recorder.schedule("sent", ()).wait()
            if scope.cancelled_caught:
                _log.error("the command store couldn't be told what was delivered")
            nursery.cancel_scope.cancel()

    async def _find_news(self) -> None:
        outage = OutageLog(_log, "new commands can't be found", clock=trio.current_time)
        while True:
            try:
                news = await self._store.wait_news()
            except Exception as exc:
                _log_failure(outage, exc)
                await trio.sleep(_FAILURE_PAUSE)
            else:
                outage.worked()
                self._schedule_lookup(news)

    async def _expire(self) -> None:
        await self._store.expire()

    async def _drop_revoked(self) -> None:
        await self._long_polls.wait_for_any()
        fingerprints = self._long_polls.fingerprints()
        doubtful = set(self._long_polls.rekeyed)
        if fingerprints:
            doubtful.update(await self._agents.revoked(fingerprints))
        for agent_id in doubtful:
            agent = await self._agents.lookup(agent_id)
            self._long_polls.revoke(agent_id, None if agent is None else agent.fingerprint)

    def close(self) -> None:
        """Answers every parked poll with None; later polls get None at once."""
        self._closing.set()
        self._long_polls.answer_all()

    async def close_over(self, seconds: float) -> None:
        """As ``close``, but parked polls are answered one after the other, evenly over so many seconds: a fleet that is
        sent away comes back."""
        self._closing.set()
        end = trio.current_time() + seconds
        while (left := end - trio.current_time()) > _CLOSING_STEP and self.parked:
            pause = max(_CLOSING_STEP, left / self.parked)
            self._long_polls.answer_some(round(self.parked * pause / left))
            await trio.sleep(min(pause, left))
        self._long_polls.answer_all()


def _with_plain_id(command: Command) -> Command:
    """Agents are known by their lower-case id."""
    target = command.target
    if target.type != "agent" or target.id == target.id.lower():
        return command
    return evolve(command, target=evolve(target, id=target.id.lower()))


def _log_failure(outage: OutageLog, error: Exception) -> None:
    if isinstance(error, BackendUnavailable):
        outage.failed(error)
    else:
        _log.error("an error of ours", exc_info=error)


async def _every(interval: float, action: Callable[[], Awaitable[None]], trouble: str) -> None:
    """``action`` again and again, whatever becomes of it."""
    outage = OutageLog(_log, trouble, clock=trio.current_time)
    while True:
        await sleep_until_next_tick(interval)
        try:
            await action()
        except Exception as exc:
            _log_failure(outage, exc)
        else:
            outage.worked()
