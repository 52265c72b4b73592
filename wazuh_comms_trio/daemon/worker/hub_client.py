"""A worker's client of the hub: what the worker tells the others, and what it does when another end says something."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

import trio
from attrs import define, field
from msgspec import UNSET

from wazuh_comms_trio.backends.interfaces import Command
from wazuh_comms_trio.backends.leadership import Finding, Leadership
from wazuh_comms_trio.daemon.status import report_document
from wazuh_comms_trio.daemon.stopping import Stop
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken
from wazuh_comms_trio.daemon.supervisor.messages import JsonObject, Message, Unknown
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat
from wazuh_comms_trio.errors import CommsError
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.services import Services
from wazuh_comms_trio.services.authentication.tokens import TokenKeyError
from wazuh_comms_trio.services.commands.command_json import decode_commands, encode_commands
from wazuh_comms_trio.services.commands.dispatcher import CommandDispatcher
from wazuh_comms_trio.services.commands.posts import POST_LIMIT

__all__ = ["HEARTBEAT_INTERVAL", "HubLeadership", "HubOtherWorkers", "run_hub_client"]

logger = logging.getLogger(__name__)

#: A worker sends its heartbeat when the hub asks for it, all workers at the same moment; after these seconds at the
#: latest.
HEARTBEAT_INTERVAL: Final = 2.0
#: A hold lives on for this long after its time, in case its ``withdraw`` is on its way.
HOLD_MARGIN: Final = 1.0


class HubOtherWorkers:
    """``OtherWorkers`` of a worker's dispatcher, over its link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = count(1)
        self._acquisitions: dict[int, _Acquisition] = {}

    def news(self, agent_ids: Collection[str]) -> None:
        if agent_ids:
            self._link.send_nowait(messages.NewCommands(agents=list(agent_ids)))

    def parked(self, agent_id: str) -> None:
        self._link.send_nowait(messages.PollParked(agent=agent_id))

    def delivered(self, commands: Sequence[Command]) -> None:
        ids = {command.document_id: command.timeout for command in commands}
        self._link.send_nowait(messages.CommandsDelivered(ids=ids))

    def hold(self, commands: Sequence[Command], seconds: float) -> None:
        self._link.send_nowait(messages.HoldCommands(commands=_to_json(commands), seconds=seconds))

    def withdraw(self, commands: Sequence[Command]) -> None:
        self._link.send_nowait(messages.WithdrawCommands(ids=[command.document_id for command in commands]))

    async def acquire(self, document_ids: Collection[str]) -> Collection[str]:
        number = next(self._numbers)
        acquisition = self._acquisitions[number] = _Acquisition()
        self._link.send_nowait(messages.AcquireCommands(number=number, ids=list(document_ids)))
        try:
            await acquisition.decided.wait()
        except trio.Cancelled:
            self._link.send_nowait(messages.CommandsReturned(ids=list(document_ids)))
            raise
        finally:
            del self._acquisitions[number]
        return acquisition.granted

    def returned(self, document_ids: Collection[str]) -> None:
        self._link.send_nowait(messages.CommandsReturned(ids=list(document_ids)))

    def handle_granted(self, number: int, document_ids: Collection[str]) -> None:
        """The hub's answer to ``acquire``."""
        if (acquisition := self._acquisitions.get(number)) is not None:
            acquisition.granted = document_ids
            acquisition.decided.set()


class HubLeadership(Leadership):
    """``Leadership`` of a worker's stores, over its link. The worker is the leader when the hub says so; always where
    the hub, of an older version, chooses none (``hub_knows``)."""

    def __init__(self, link: Link, *, hub_knows: bool = True) -> None:
        super().__init__(leader=not hub_knows)
        self._link = link

    def publish(self, topic: str, finding: Finding) -> None:
        self._link.send_nowait(messages.Finding(topic=topic, finding=dict(finding)))

    def ask_leader(self, topic: str, request: Finding) -> None:
        self._link.send_nowait(messages.LeaderRequest(topic=topic, request=dict(request)))


class _Acquisition:
    def __init__(self) -> None:
        self.granted: Collection[str] = ()
        self.decided = trio.Event()


async def run_hub_client(
    link: Link,
    other_workers: HubOtherWorkers,
    leadership: HubLeadership,
    dispatcher: CommandDispatcher,
    heartbeat: Heartbeat,
    stop: Stop,
    services: Services,
    metrics: Metrics,
) -> None:
    """Follows the link until it ends: then the supervisor is gone, and so must its worker be. The link's ``run`` is the
    caller's. Cancelled: at once."""
    async with BackgroundNursery() as nursery:
        client = _HubClient(link, other_workers, leadership, dispatcher, heartbeat, stop, services, metrics, nursery)
        nursery.start_soon(client.send_heartbeats)
        with suppress(LinkBroken):
            while True:
                client.handle(await link.receive())
        if not stop.requested.is_set():
            logger.error("the supervisor is gone; stopping")
        stop.shorten()


@define(eq=False)
class _HubClient:
    """``handle`` does what one message says; what takes time runs in ``nursery``."""

    link: Link
    other_workers: HubOtherWorkers
    leadership: HubLeadership
    dispatcher: CommandDispatcher
    heartbeat: Heartbeat
    stop: Stop
    services: Services
    metrics: Metrics
    nursery: trio.Nursery
    #: What other workers were posted, and no store keeps.
    holds: dict[str, Command] = field(factory=dict)
    #: The posts that are under way here, by number.
    posts: dict[int, trio.CancelScope] = field(factory=dict)

    asked: trio.Event = field(factory=trio.Event)

    async def _look(self) -> None:
        await self.heartbeat.look()
        self.link.send_nowait(messages.HealthReport(report=report_document(self.heartbeat.report()), looked=True))

    async def send_heartbeats(self) -> None:
        while True:
            self.asked = trio.Event()
            self.link.send_nowait(messages.HealthReport(report=report_document(self.heartbeat.report())))
            with trio.move_on_after(HEARTBEAT_INTERVAL):
                await self.asked.wait()

    def handle(self, message: Message | Unknown) -> None:
        match message:
            case messages.HealthRequest(look=True):
                self.nursery.start_soon(self._look)
            case messages.HealthRequest():
                self.asked.set()
            case messages.AgentQuestion():
                document = self.services.about_agent(message.agent)
                self.link.send_nowait(messages.AgentAnswer(number=message.number, document=document))
            case messages.MetricsRequest():
                self.link.send_nowait(messages.MetricsReport(snapshot=self.metrics.snapshot()))
            case messages.Post():
                self.link.send_nowait(messages.PostTaken(number=message.number))
                self.posts[message.number] = scope = trio.CancelScope()
                self.nursery.start_soon(self._answer_post, message, scope)
            case messages.WithdrawPost():
                if (under_way := self.posts.get(message.number)) is not None:
                    under_way.cancel()
            case messages.NewCommands():
                self.dispatcher.lookups.schedule(message.agents, new=True)
            case messages.PollParked():
                self.dispatcher.parked_elsewhere(message.agent)
            case messages.CommandsDelivered():
                self.dispatcher.posts.handle_delivered(message.ids)
            case messages.HoldCommands():
                self._hold(message)
            case messages.WithdrawCommands():
                self._drop(message.ids)
            case messages.CommandsFreed():
                self.dispatcher.posts.handle_freed(message.ids)
            case messages.CommandsGranted():
                self.other_workers.handle_granted(message.number, message.ids)
            case messages.LeaderChange():
                self.leadership.set_leader(message.leader)
            case messages.Finding():
                self.leadership.handle_finding(message.topic, message.finding)
            case messages.LeaderRequest():
                self.leadership.handle_request(message.topic, message.request)
            case messages.Drain():
                self.services.readiness.drain(message.on)
            case messages.TrustKey():
                self._trust(message.public_key)
            case messages.RevokeKeys():
                self.services.revoke_keys(message.keys)
            case messages.Stop():
                self.stop.request(spread=message.spread, grace=message.grace)
            case messages.ShortenStop():
                self.stop.shorten()
            case messages.HurryStop():
                self.stop.hurry()
            case messages.Unknown(problem=None):
                logger.debug("the supervisor sent a message of another version: %s", message.kind)
            case messages.Unknown():
                logger.warning("the supervisor sent a bad message: %s: %s", message.kind, message.problem)
            case _:
                logger.warning("the supervisor sent a message that is a worker's to send: %s", type(message).__name__)

    async def _answer_post(self, post: messages.Post, scope: trio.CancelScope) -> None:
        try:
            with scope:
                self.dispatcher.posts.handle_delivered(post.delivered)
                within = POST_LIMIT if post.seconds is UNSET else post.seconds
                if post.sent is not UNSET:  # this worker may have been busy since
                    within -= max(0.0, time.monotonic() - post.sent)
                try:
                    commands = await self.dispatcher.posts.post(_from_json(post.commands), within=within)
                except CommsError as error:
                    answer = messages.PostAnswer(number=post.number, error=error.message)
                else:
                    answer = messages.PostAnswer(number=post.number, commands=_to_json(commands))
                self.link.send_nowait(answer)
        finally:
            del self.posts[post.number]

    def _trust(self, public_key: str) -> None:
        try:
            self.services.trust_key(public_key.encode())
        except TokenKeyError as error:
            logger.warning("the key that signs next can't be used: %s", error)

    def _hold(self, message: messages.HoldCommands) -> None:
        new = [command for command in _from_json(message.commands) if command.document_id not in self.holds]
        self.holds.update((command.document_id, command) for command in new)
        self.dispatcher.posts.hold(new)
        self.nursery.start_soon(self._drop_later, new, message.seconds + HOLD_MARGIN)

    async def _drop_later(self, commands: Sequence[Command], seconds: float) -> None:
        await trio.sleep(seconds)
        self._drop([command.document_id for command in commands])

    def _drop(self, document_ids: Collection[str]) -> None:
        gone = [command for i in document_ids if (command := self.holds.pop(i, None)) is not None]
        self.dispatcher.posts.withdraw(gone)


def _to_json(commands: Sequence[Command]) -> list[JsonObject]:
    objects: list[JsonObject] = json.loads(encode_commands(commands))["commands"]
    return objects


def _from_json(commands: list[JsonObject]) -> list[Command]:
    return decode_commands(json.dumps({"commands": commands}).encode())
