"""A worker's side of the hub: what it tells the others, and what it does when it is told something."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

import trio
from attrs import define, field

from wazuh_comms_trio.backends.interfaces import Command
from wazuh_comms_trio.backends.leadership import Finding, Leadership
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken, Message
from wazuh_comms_trio.daemon.worker.heartbeat import Heartbeat
from wazuh_comms_trio.daemon.worker.tree import Stop
from wazuh_comms_trio.errors import CommsError
from wazuh_comms_trio.services.commands.command_json import decode_commands, encode_commands
from wazuh_comms_trio.services.commands.dispatcher import POST_LIMIT, CommandDispatcher

__all__ = ["HEARTBEAT_INTERVAL", "HubLeadership", "HubOtherWorkers", "run_hub_client"]

logger = logging.getLogger(__name__)

#: A beat is sent when the hub asks for one, which it does of all at the same moment, and after so many seconds at the
#: latest.
HEARTBEAT_INTERVAL: Final = 2.0
#: A hold lives on for this long after its time, in case its ``withdraw`` is on its way.
HOLD_MARGIN: Final = 1.0


class HubOtherWorkers:
    """``OtherWorkers`` of a worker's dispatcher, over its link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = count(1)
        self._questions: dict[int, _Acquisition] = {}

    def news(self, agent_ids: Collection[str]) -> None:
        if agent_ids:
            self._link.send_nowait("news", agents=list(agent_ids))

    def delivered(self, commands: Sequence[Command]) -> None:
        self._link.send_nowait("delivered", ids={command.document_id: command.timeout for command in commands})

    def hold(self, commands: Sequence[Command], seconds: float) -> None:
        self._link.send_nowait("hold", commands=_as_data(commands), seconds=seconds)

    def withdraw(self, commands: Sequence[Command]) -> None:
        self._link.send_nowait("withdraw", ids=[command.document_id for command in commands])

    async def acquire(self, document_ids: Collection[str]) -> Collection[str]:
        number = next(self._numbers)
        question = self._questions[number] = _Acquisition()
        self._link.send_nowait("acquire", number=number, ids=list(document_ids))
        try:
            await question.decided.wait()
        except trio.Cancelled:
            self._link.send_nowait("returned", ids=list(document_ids))
            raise
        finally:
            del self._questions[number]
        return question.granted

    def returned(self, commands: Sequence[Command]) -> None:
        self._link.send_nowait("returned", ids=[command.document_id for command in commands])

    def take_grant(self, number: int, document_ids: Collection[str]) -> None:
        """The hub's answer to ``acquire``."""
        if (question := self._questions.get(number)) is not None:
            question.granted = document_ids
            question.decided.set()


class HubLeadership(Leadership):
    """``Leadership`` of a worker's stores, over its link. The worker is the leader when the hub says so; always where
    the hub, of an older version, chooses none (``hub_knows``)."""

    def __init__(self, link: Link, *, hub_knows: bool = True) -> None:
        super().__init__(leader=not hub_knows)
        self._link = link

    def publish(self, topic: str, finding: Finding) -> None:
        self._link.send_nowait("finding", topic=topic, finding=finding)

    def ask_leader(self, topic: str, request: Finding) -> None:
        self._link.send_nowait("wish", topic=topic, wish=request)


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
) -> None:
    """Follows the link until it ends: then the supervisor is gone, and so must its worker be. The link's ``run`` is the
    caller's. Cancelled: at once."""
    async with trio.open_nursery() as nursery:
        client = _HubClient(link, other_workers, leadership, dispatcher, stop, nursery)
        nursery.start_soon(client.send_heartbeats, heartbeat)
        with suppress(LinkBroken):
            while True:
                client.handle(await link.receive())
        if not stop.requested.is_set():
            logger.error("the supervisor is gone; stopping")
        stop.shorten()
        nursery.cancel_scope.cancel()


@define(eq=False)
class _HubClient:
    """``handle`` does what one message says; what takes time runs in ``nursery``."""

    link: Link
    other_workers: HubOtherWorkers
    leadership: HubLeadership
    dispatcher: CommandDispatcher
    stop: Stop
    nursery: trio.Nursery
    #: What other workers were posted, and no store keeps.
    holds: dict[str, Command] = field(factory=dict)
    #: The posts that are under way here, by number.
    posts: dict[int, trio.CancelScope] = field(factory=dict)

    asked: trio.Event = field(factory=trio.Event)

    async def send_heartbeats(self, heartbeat: Heartbeat) -> None:
        while True:
            self.asked = trio.Event()
            self.link.send_nowait("beat", report=heartbeat.report())
            with trio.move_on_after(HEARTBEAT_INTERVAL):
                await self.asked.wait()

    def handle(self, message: Message) -> None:
        match message:
            case {"type": "ask"}:
                self.asked.set()
            case {"type": "post", "number": int(number)}:
                self.link.send_nowait("taken", number=number)
                self.posts[number] = scope = trio.CancelScope()
                self.nursery.start_soon(self._answer_post, message, scope)
            case {"type": "unpost", "number": int(number)}:
                if (under_way := self.posts.get(number)) is not None:
                    under_way.cancel()
            case {"type": "news", "agents": list(agents)}:
                self.dispatcher.handle_news(agents)
            case {"type": "delivered", "ids": dict(ids)}:
                self.dispatcher.handle_delivered(ids)
            case {"type": "hold", "commands": list(commands), "seconds": seconds}:
                new = [command for command in _from_data(commands) if command.document_id not in self.holds]
                self.holds.update((command.document_id, command) for command in new)
                self.dispatcher.hold(new)
                self.nursery.start_soon(self._drop_later, new, float(seconds) + HOLD_MARGIN)
            case {"type": "withdraw", "ids": list(ids)}:
                self._drop(ids)
            case {"type": "free", "ids": list(ids)}:
                self.dispatcher.handle_freed(ids)
            case {"type": "granted", "number": int(number), "ids": list(ids)}:
                self.other_workers.take_grant(number, ids)
            case {"type": "duty", "on": bool(on)}:
                self.leadership.set_leader(on)
            case {"type": "finding", "topic": str(topic), "finding": dict(finding)}:
                self.leadership.handle_finding(topic, finding)
            case {"type": "wish", "topic": str(topic), "wish": dict(wish)}:
                self.leadership.handle_request(topic, wish)
            case {"type": "stop", "spread": spread, **rest}:
                self.stop.request(spread=float(spread), grace=rest.get("grace"))
            case {"type": "shorten"}:
                self.stop.shorten()
            case {"type": "hurry"}:
                self.stop.hurry()
            case _:
                # The supervisor's code may be newer, or older, than ours: what matters is in both.
                logger.debug("the supervisor sent a message that isn't known: %s", message.get("type"))

    async def _answer_post(self, message: Message, scope: trio.CancelScope) -> None:
        number = message["number"]
        try:
            with scope:
                self.dispatcher.handle_delivered(message["delivered"])
                try:
                    commands = await self.dispatcher.post(
                        _from_data(message["commands"]), within=float(message.get("seconds", POST_LIMIT))
                    )
                except CommsError as error:
                    self.link.send_nowait("posted", number=number, error=error.message)
                else:
                    self.link.send_nowait("posted", number=number, commands=_as_data(commands))
        finally:
            del self.posts[number]

    async def _drop_later(self, commands: Sequence[Command], seconds: float) -> None:
        await trio.sleep(seconds)
        self._drop([command.document_id for command in commands])

    def _drop(self, document_ids: Collection[str]) -> None:
        gone = [command for i in document_ids if (command := self.holds.pop(i, None)) is not None]
        self.dispatcher.withdraw(gone)


def _as_data(commands: Sequence[Command]) -> list[object]:
    data: list[object] = json.loads(encode_commands(commands))["commands"]
    return data


def _from_data(commands: list[object]) -> list[Command]:
    return decode_commands(json.dumps({"commands": commands}).encode())
