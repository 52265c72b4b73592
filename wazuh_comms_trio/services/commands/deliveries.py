"""Deliveries: from claimed commands to what the store is told of them, in one direction.

claimed -> Deliveries.start -> Deliveries.run -> CommandDelivery, which answers a poll -> confirm or release
        -> Deliveries._finish -> DeliveryRecorder -> the store's mark_sent or release
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final

import trio
from attrs import frozen

from wazuh_comms_trio.backends.interfaces import Command, CommandReport, CommandResult
from wazuh_comms_trio.backends.unreadable import escaped
from wazuh_comms_trio.services.commands.command_delivery import CommandDelivery, DeliveryOutcome
from wazuh_comms_trio.services.commands.command_json import fit_into_reply, why_too_large
from wazuh_comms_trio.services.commands.delivery_recorder import DeliveryRecorder
from wazuh_comms_trio.services.commands.long_polls import LongPolls
from wazuh_comms_trio.services.commands.lookup_queue import LookupQueue
from wazuh_comms_trio.services.commands.other_workers import OtherWorkers
from wazuh_comms_trio.services.commands.posts import Posts

__all__ = ["Deliveries"]

_log = logging.getLogger(__name__)

#: Commands that one delivery holds, unless the store has claimed more.
_COMMANDS_PER_DELIVERY: Final = 100
#: Deliveries that begin in one turn of the event loop: a command for a whole fleet takes turns with requests, each of
#: which waits for some four turns. A delivery costs some 0.4 ms in all, a turn without anything 0.01 ms.
_BEGUN_AT_ONCE: Final = 1
#: Agents whose deliveries don't wait for a turn to begin in.
_FEW: Final = 4


@frozen
class _Found:
    """The result of one look-up. ``acquired``: ids of the posted commands that are this worker's to deliver."""

    agent_ids: Collection[str]
    claimed: Sequence[Command]
    acquired: set[str]


class Deliveries:
    """All deliveries that aren't decided, one for an agent at most: until it is known whether a delivery arrived,
    nothing else goes to its agent."""

    def __init__(
        self,
        long_polls: LongPolls,
        lookups: LookupQueue,
        posts: Posts,
        recorder: DeliveryRecorder,
        other_workers: OtherWorkers,
        note_outcome: Callable[[CommandDelivery, DeliveryOutcome], None] = lambda delivery, outcome: None,
    ) -> None:
        self._note_outcome = note_outcome
        self._long_polls = long_polls
        self._lookups = lookups
        self._posts = posts
        self._recorder = recorder
        self._other_workers = other_workers
        #: Agents with a delivery that isn't decided, or for which something was found that isn't one yet.
        self.busy: set[str] = set()
        self._in_delivery: set[str] = set()
        self._changed = trio.Event()
        # Found while what was found before is handed out; with that, a thousand agents' commands at most.
        self._send, self._receive = trio.open_memory_channel[_Found](0)
        self._to_hand_out = 0

    async def start(self, agent_ids: Collection[str], claimed: Sequence[Command], acquired: set[str]) -> None:
        """Makes deliveries for those agents that still have a poll; what nobody can take goes back. ``claimed`` from
        the store; ``acquired``: ids of the posted commands that are this worker's to deliver. Those of few agents are
        made at once, where no others are being made; else it returns when ``run`` begins with them."""
        self.busy.update(agent_ids)
        self._to_hand_out += 1
        found = _Found(agent_ids, claimed, acquired)
        if self._to_hand_out == 1 and len(agent_ids) <= _FEW:
            await self._hand_out(found)
        else:
            await self._send.send(found)

    async def run(self) -> None:
        """Begins the deliveries, a few in a turn of the event loop. Until cancelled."""
        async for found in self._receive:
            await self._hand_out(found)
            del found  # it may be large, and nothing may come for long

    async def _hand_out(self, found: _Found) -> None:
        """Makes deliveries of what was found, a few in a turn of the event loop."""
        by_agent: dict[str, list[Command]] = {}
        for command in found.claimed:
            by_agent.setdefault(command.target.id, []).append(command)
        begun = 0
        for agent_id in {*found.agent_ids, *by_agent}:
            if self._begin(agent_id, by_agent.get(agent_id, []), found.acquired):
                begun += 1
                if begun % _BEGUN_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            elif agent_id not in self._in_delivery:
                self.busy.discard(agent_id)
                if agent_id in by_agent:  # nothing of it goes to the agent, and there may be more than one claim gives
                    self._lookups.schedule((agent_id,))
        if found.acquired:
            # Also what its post has withdrawn while the store was asked.
            self._other_workers.returned(found.acquired)
        self._lookups.handed_out(found.agent_ids)
        self._to_hand_out -= 1
        self._changed.set()

    def _begin(self, agent_id: str, stored: list[Command], acquired: set[str]) -> bool:
        """Whether the agent has a delivery now; its posted commands are taken out of ``acquired``."""
        fitting = fit_into_reply(self._without_delivered(stored))
        self._fail(fitting.never)
        stored = [*fitting.now, *fitting.later]
        ids = dict.fromkeys(command.document_id for command in stored)
        self._posts.held.drop(stored)  # posted, and in the store too: it is delivered once, as the store's
        poll = self._long_polls.newest(agent_id)
        if poll is None or agent_id in self._in_delivery:
            if stored:
                self._recorder.schedule("released", ids, (agent_id,))
            return False
        if fitting.later:
            rest = [command.document_id for command in fitting.later]
            self._recorder.schedule("released", rest, (agent_id,))
            ids = dict.fromkeys(command.document_id for command in fitting.now)
        stored = list(fitting.now)
        posted = self._posts.held.take(agent_id, _COMMANDS_PER_DELIVERY - len(stored), acquired)
        also = fit_into_reply(posted, fitting.room)
        self._posts.held.put_back([command for command in posted if command not in also.now])
        posted = list(also.now)
        acquired.difference_update(command.document_id for command in posted)
        if not stored and not posted:
            return False
        self._in_delivery.add(agent_id)
        texts = None if fitting.texts is None or also.texts is None else [*fitting.texts, *also.texts]
        delivery = CommandDelivery(agent_id, stored + posted, ids, self._finish, self._give_back, texts)
        self._long_polls.answer(poll, delivery)
        return True

    def _without_delivered(self, stored: list[Command]) -> list[Command]:
        """The commands without those that were delivered as a post's, here or by another worker."""
        sent_before = [one.document_id for one in stored if one.document_id in self._posts.delivered]
        if not sent_before:
            return stored
        self._recorder.schedule("sent", sent_before)
        return [one for one in stored if one.document_id not in sent_before]

    def _fail(self, commands: Sequence[tuple[Command, int]]) -> None:
        """Ends commands that are too large: an agent would refuse each, and all that comes beside it."""
        for command, size in commands:
            why = why_too_large(size)
            _log.warning("the command %s fails: it is %s", escaped(command.document_id), why)
            result = CommandResult(message=why)
            self._recorder.fail(CommandReport(command.target.id, command.document_id, result, is_received=False))

    def _finish(self, delivery: CommandDelivery, outcome: DeliveryOutcome) -> trio.Event:
        """Ends a delivery; the event is set when the store has been told."""
        self._note_outcome(delivery, outcome)
        if outcome == "sent":
            self._posts.confirm_delivery(delivery.commands)
            self._other_workers.delivered(delivery.commands)
        else:
            self._put_back_posted(delivery, delivery.commands)
        self._in_delivery.discard(delivery.agent_id)
        self.busy.discard(delivery.agent_id)
        self._lookups.delivery_decided(delivery.agent_id)
        self._changed.set()
        return self._recorder.schedule(outcome, delivery.claimed, (delivery.agent_id,))

    def _give_back(self, delivery: CommandDelivery, commands: Sequence[Command]) -> None:
        """Some of a delivery's commands don't go with it."""
        self._put_back_posted(delivery, commands)
        rest = [command.document_id for command in commands if command.document_id in delivery.claimed]
        self._recorder.schedule("released", rest, (delivery.agent_id,))

    def _put_back_posted(self, delivery: CommandDelivery, commands: Sequence[Command]) -> None:
        """Of these commands the ones that the store doesn't have may be delivered again, by any worker."""
        posted = [command for command in commands if command.document_id not in delivery.claimed]
        self._posts.held.put_back(posted)
        if posted:
            self._other_workers.returned([command.document_id for command in posted])

    async def wait_decided(self) -> None:
        """Returns when none is undecided, nor to be begun."""
        while self._in_delivery or self._to_hand_out:
            self._changed = trio.Event()
            await self._changed.wait()
