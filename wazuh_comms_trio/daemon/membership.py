"""A worker's side of the hub: what it tells the others, and what it does when it is told something."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

import trio

from wazuh_comms_trio.backends.base import Command
from wazuh_comms_trio.daemon.link import Link, LinkBroken, Message
from wazuh_comms_trio.daemon.vitals import Vitals
from wazuh_comms_trio.daemon.worker import Stop
from wazuh_comms_trio.errors import CommsError
from wazuh_comms_trio.services.command_json import decode_commands, encode_commands
from wazuh_comms_trio.services.commands import CommandDispatcher

__all__ = ["BEAT_INTERVAL", "HubPeers", "run_membership"]

logger = logging.getLogger(__name__)

#: Seconds between two beats.
BEAT_INTERVAL: Final = 1.0
#: A hold lives on for this long after its time, in case its ``withdraw`` is on its way.
HOLD_MARGIN: Final = 1.0


class HubPeers:
    """``Peers`` of a worker's dispatcher, over its link."""

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


class _Acquisition:
    def __init__(self) -> None:
        self.granted: Collection[str] = ()
        self.decided = trio.Event()


async def run_membership(
    link: Link, peers: HubPeers, dispatcher: CommandDispatcher, vitals: Vitals, stop: Stop
) -> None:
    """Follows the link until it ends: then the supervisor is gone, and so must its worker be. The link's ``run`` is the
    caller's. Cancelled: at once."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_beat, link, vitals)
        holds: dict[str, Command] = {}
        with suppress(LinkBroken):
            while True:
                _obey(await link.receive(), link, peers, dispatcher, stop, holds, nursery)
        if not stop.requested.is_set():
            logger.error("the supervisor is gone; stopping")
        stop.shorten()
        nursery.cancel_scope.cancel()


async def _beat(link: Link, vitals: Vitals) -> None:
    while True:
        link.send_nowait("beat", report=vitals.report())
        await trio.sleep(BEAT_INTERVAL)


def _obey(
    message: Message,
    link: Link,
    peers: HubPeers,
    dispatcher: CommandDispatcher,
    stop: Stop,
    holds: dict[str, Command],
    nursery: trio.Nursery,
) -> None:
    match message:
        case {"type": "post"}:
            nursery.start_soon(_answer_post, link, message, dispatcher)
        case {"type": "news", "agents": list(agents)}:
            dispatcher.suspect(agents)
        case {"type": "delivered", "ids": dict(ids)}:
            dispatcher.note_delivered(ids)
        case {"type": "hold", "commands": list(commands), "seconds": seconds}:
            new = [command for command in _from_data(commands) if command.document_id not in holds]
            holds.update((command.document_id, command) for command in new)
            dispatcher.hold(new)
            nursery.start_soon(_drop_later, dispatcher, holds, new, float(seconds) + HOLD_MARGIN)
        case {"type": "withdraw", "ids": list(ids)}:
            _drop(dispatcher, holds, ids)
        case {"type": "free", "ids": list(ids)}:
            dispatcher.reconsider(ids)
        case {"type": "granted", "number": int(number), "ids": list(ids)}:
            peers.take_grant(number, ids)
        case {"type": "stop", "spread": spread, **rest}:
            stop.request(spread=float(spread), grace=rest.get("grace"))
        case {"type": "shorten"}:
            stop.shorten()
        case {"type": "hurry"}:
            stop.hurry()
        case _:
            logger.error("the supervisor sent a message that isn't known: %s", message.get("type"))


async def _answer_post(link: Link, message: Message, dispatcher: CommandDispatcher) -> None:
    dispatcher.note_delivered(message["delivered"])
    try:
        commands = await dispatcher.post(_from_data(message["commands"]))
    except CommsError as error:
        link.send_nowait("posted", number=message["number"], error=error.message)
    else:
        link.send_nowait("posted", number=message["number"], commands=_as_data(commands))


async def _drop_later(
    dispatcher: CommandDispatcher, holds: dict[str, Command], commands: Sequence[Command], seconds: float
) -> None:
    await trio.sleep(seconds)
    _drop(dispatcher, holds, [command.document_id for command in commands])


def _drop(dispatcher: CommandDispatcher, holds: dict[str, Command], document_ids: Collection[str]) -> None:
    dispatcher.withdraw([command for i in document_ids if (command := holds.pop(i, None)) is not None])


def _as_data(commands: Sequence[Command]) -> list[object]:
    data: list[object] = json.loads(encode_commands(commands))["commands"]
    return data


def _from_data(commands: list[object]) -> list[Command]:
    return decode_commands(json.dumps({"commands": commands}).encode())
