"""Deliveries: from claimed commands to what the store is told of them, in one direction.

claimed -> Deliveries.start -> CommandDelivery, which answers a poll -> confirm or release
        -> Deliveries._finish -> DeliveryRecorder -> the store's mark_sent or release
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import trio

from wazuh_comms_trio.backends.interfaces import Command
from wazuh_comms_trio.services.commands.command_delivery import CommandDelivery, DeliveryOutcome
from wazuh_comms_trio.services.commands.delivery_recorder import DeliveryRecorder
from wazuh_comms_trio.services.commands.long_polls import LongPolls
from wazuh_comms_trio.services.commands.lookup_queue import LookupQueue
from wazuh_comms_trio.services.commands.other_workers import OtherWorkers
from wazuh_comms_trio.services.commands.posts import Posts

__all__ = ["Deliveries"]

#: Commands that one delivery holds, unless the store has claimed more.
_COMMANDS_PER_DELIVERY: Final = 100


class Deliveries:
    """All deliveries that aren't decided, one for an agent at most: until it is known whether that arrived, nothing
    else goes to the same agent."""

    def __init__(
        self,
        long_polls: LongPolls,
        lookups: LookupQueue,
        posts: Posts,
        recorder: DeliveryRecorder,
        other_workers: OtherWorkers,
    ) -> None:
        self._long_polls = long_polls
        self._lookups = lookups
        self._posts = posts
        self._recorder = recorder
        self._other_workers = other_workers
        #: Agents with a delivery that isn't decided.
        self.in_delivery: set[str] = set()
        self._decided = trio.Event()

    def start(self, agent_ids: Collection[str], claimed: Sequence[Command], acquired: set[str]) -> None:
        """Deliveries for those agents that still have a poll; what nobody can take goes back. ``claimed`` from the
        store; ``acquired``: ids of the posted commands that are this worker's to deliver."""
        by_agent = self._sort(claimed)
        for agent_id in {*agent_ids, *by_agent}:
            stored = by_agent.get(agent_id, [])
            ids = frozenset(command.document_id for command in stored)
            self._posts.held.drop(stored)  # posted, and in the store too: it is delivered once, as the store's
            poll = self._long_polls.newest(agent_id)
            if poll is None or agent_id in self.in_delivery:
                if stored:
                    self._recorder.schedule("released", ids, (agent_id,))
                continue
            posted = self._posts.held.take(agent_id, _COMMANDS_PER_DELIVERY - len(stored), acquired)
            acquired.difference_update(command.document_id for command in posted)
            if stored or posted:
                self.in_delivery.add(agent_id)
                self._long_polls.answer(poll, CommandDelivery(agent_id, stored + posted, ids, self._finish))
        if acquired:
            self._other_workers.returned(acquired)  # also what its post has withdrawn while the store was asked

    def _sort(self, claimed: Sequence[Command]) -> dict[str, list[Command]]:
        """By agent; without those that were delivered as a post's before the store had them."""
        by_agent: dict[str, list[Command]] = {}
        sent_before = []
        for command in claimed:
            if command.document_id in self._posts.delivered:
                sent_before.append(command.document_id)
            else:
                by_agent.setdefault(command.target.id, []).append(command)
        if sent_before:
            self._recorder.schedule("sent", sent_before)
        return by_agent

    def _finish(self, delivery: CommandDelivery, outcome: DeliveryOutcome) -> trio.Event:
        """The event is set when the store has been told."""
        if outcome == "sent":
            self._posts.confirm_delivery(delivery.commands)
            self._other_workers.delivered(delivery.commands)
        else:
            posted = [command for command in delivery.commands if command.document_id not in delivery.claimed]
            self._posts.held.put_back(posted)
            if posted:
                self._other_workers.returned([command.document_id for command in posted])
        self.in_delivery.discard(delivery.agent_id)
        self._lookups.delivery_decided(delivery.agent_id)
        self._decided.set()
        return self._recorder.schedule(outcome, delivery.claimed, (delivery.agent_id,))

    async def wait_decided(self) -> None:
        """Returns when none is undecided."""
        while self.in_delivery:
            self._decided = trio.Event()
            await self._decided.wait()
