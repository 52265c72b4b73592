"""The command dispatcher: the service of long polls, and what runs behind it.

Polls only park and wait. ``lookups.py`` claims commands for their agents, ``deliveries.py`` answers polls with them and
sees to it that the store is told, ``posts.py`` is the local command server's side, ``upkeep.py`` expires and revokes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from random import Random
from typing import Final

import trio

from wazuh_comms_trio.backends.interfaces import AgentRegistry, CommandStore
from wazuh_comms_trio.errors import TokenInvalid
from wazuh_comms_trio.foundation.environment import WallClock
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.commands.clock_steps import ClockSteps
from wazuh_comms_trio.services.commands.command_delivery import CommandDelivery, DeliveryOutcome
from wazuh_comms_trio.services.commands.deliveries import Deliveries
from wazuh_comms_trio.services.commands.delivery_recorder import DeliveryRecorder
from wazuh_comms_trio.services.commands.long_polls import LongPoll, LongPolls
from wazuh_comms_trio.services.commands.lookup_queue import LookupQueue
from wazuh_comms_trio.services.commands.lookups import find_news, look_up
from wazuh_comms_trio.services.commands.other_workers import NO_OTHER_WORKERS, OtherWorkers
from wazuh_comms_trio.services.commands.posts import Posts
from wazuh_comms_trio.services.commands.upkeep import expire_commands, notice_clock_set_back, revoke_polls

__all__ = ["CommandDispatcher"]

_log = logging.getLogger(__name__)

#: A poll's limit is varied by this share, so that a fleet that parked at once doesn't come back at once.
_POLL_LIMIT_VARIATION: Final = 0.1
#: How long the store is waited for at the end, seconds.
_LAST_RECORDING_TIMEOUT: Final = 5.0
_LAST_CALL_TIMEOUT: Final = 1.0


class CommandDispatcher:
    """``posts`` and ``lookups`` are for those who bring commands: the command server, and the other workers.
    ``parked_limit``: polls at a time, 0: any number; the oldest is answered for a further one. ``refused``: told how
    many were answered with nothing for want of room."""

    def __init__(
        self,
        store: CommandStore,
        agents: AgentRegistry,
        *,
        poll_timeout: float,
        wall_clock: WallClock,
        rng: Random,
        other_workers: OtherWorkers = NO_OTHER_WORKERS,
        parked_limit: int = 0,
        refused: Callable[[int], None] = lambda count: None,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._store = store
        self._agents = agents
        self._poll_timeout = poll_timeout
        self._wall_clock = wall_clock
        self._rng = rng
        self._other_workers = other_workers
        self._closing = trio.Event()
        self._tokens_from = -inf
        self._long_polls = LongPolls()
        self._parked_limit = parked_limit
        self._refused = refused
        self.lookups: LookupQueue = LookupQueue(self._long_polls)
        self.posts: Posts = Posts(store, self.lookups, other_workers)
        self._recorder = DeliveryRecorder(store, rng, self.lookups.schedule)
        self._deliveries = Deliveries(
            self._long_polls, self.lookups, self.posts, self._recorder, other_workers, self._note_outcome
        )

    def _note_outcome(self, delivery: CommandDelivery, outcome: DeliveryOutcome) -> None:
        self._metrics.count(families.COMMANDS, outcome, by=len(delivery.commands))
        if outcome == "sent":
            now = self._wall_clock()
            for command in delivery.commands:
                if command.created_at:
                    self._metrics.observe(families.DELIVERY_SECONDS, max(0.0, now - command.created_at))

    @property
    def parked(self) -> int:
        """How many polls wait now."""
        return len(self._long_polls)

    def is_parked(self, agent_id: str) -> bool:
        """Whether a poll of this agent waits now."""
        return agent_id in self._long_polls

    def is_urgent(self) -> bool:
        """Whether commands for few agents are on their way to them."""
        return self.lookups.is_urgent

    def parked_elsewhere(self, agent_id: str) -> None:
        """A newer poll of this agent is parked at another worker: those here end."""
        self._long_polls.displace(agent_id)

    def answer_oldest(self, count: int) -> int:
        """Answers up to ``count`` polls, those first that parked first, with None; returns how many."""
        if answered := self._long_polls.answer_oldest(count):
            self._refused(answered)
        return answered

    def answer_all(self) -> None:
        """Answers every parked poll with None, several of one agent too, and those that park later with a token that
        was read before: it may not be good any more."""
        self._tokens_from = trio.current_time()
        self._long_polls.answer_all()

    def poll_limit(self) -> float:
        """How long one poll may take: ``timeouts.commands`` ± 10 %, in seconds."""
        return self._poll_timeout * self._rng.uniform(1 - _POLL_LIMIT_VARIATION, 1 + _POLL_LIMIT_VARIATION)

    async def poll(self, caller: Caller, *, deadline: float) -> CommandDelivery | None:
        """Waits for commands for an agent. None: nothing came (``deadline`` on trio's clock, the token's end, a newer
        poll, shutdown). Raises ``TokenInvalid`` when the agent was removed or rekeyed meanwhile. Cancelled: what was on
        its way to this poll goes to another.
        """
        end = min(deadline, trio.current_time() + caller.expires - self._wall_clock())
        if self._closing.is_set() or end <= trio.current_time() or caller.read_at <= self._tokens_from:
            await trio.lowlevel.checkpoint()
            return None
        if self._parked_limit and len(self._long_polls) >= self._parked_limit:
            self.answer_oldest(1)
        poll = LongPoll(caller.agent.id, caller.fingerprint, end)
        self._long_polls.add(poll)
        self._other_workers.parked(poll.agent_id)
        try:
            self.lookups.schedule((poll.agent_id,))
            with poll.scope:
                await poll.news.wait()
        except BaseException:
            if poll.delivery is not None:
                poll.delivery.release_nowait()
            raise
        finally:
            self._long_polls.remove(poll)
        if poll.revoked:
            raise TokenInvalid
        return poll.delivery

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Finds commands, expires them, ends polls of revoked agents. Ends after ``close``, once the deliveries in
        flight are decided and the store has been told, or hasn't been able to listen for some seconds."""
        clock = ClockSteps(self._wall_clock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._recorder.run)
            nursery.start_soon(
                look_up, self._store, self.lookups, self.posts, self._deliveries, self._other_workers, clock
            )
            nursery.start_soon(self._deliveries.run)
            nursery.start_soon(find_news, self._store, self.lookups)
            nursery.start_soon(expire_commands, self._store)
            nursery.start_soon(revoke_polls, self._long_polls, self._agents)
            nursery.start_soon(notice_clock_set_back, clock, self._long_polls, self.lookups)
            task_status.started()
            await self._closing.wait()
            await self._deliveries.wait_decided()
            with trio.move_on_after(_LAST_RECORDING_TIMEOUT) as scope:
                await self._recorder.wait_idle()
            nursery.cancel_scope.cancel()
        if scope.cancelled_caught:
            await self._tell_last()

    async def _tell_last(self) -> None:
        """A store that hasn't answered for some seconds has heard of one call alone. What was delivered since isn't to
        be given back, as what it holds is when it is closed."""
        with trio.move_on_after(_LAST_CALL_TIMEOUT):
            if await self._recorder.tell_last():
                return
        _log.error("the command store couldn't be told what was delivered")

    def close(self) -> None:
        """Answers every parked poll with None; later polls get None at once."""
        self._closing.set()
        self._long_polls.answer_all()

    async def close_over(self, seconds: float) -> None:
        """As ``close``, but parked polls are answered one after the other, evenly over ``seconds``: a fleet that is
        sent away comes back."""
        self._closing.set()
        await self._long_polls.answer_over(seconds)
