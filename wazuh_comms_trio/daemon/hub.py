"""The hub: where the workers of one node meet. It knows messages and links, no process, no socket and no store.

a post       -> one worker, which stores it or holds it; its answer comes back the same way
news         -> every other worker: these agents may have commands
delivered    -> every other worker, and remembered here until the command's timeout
hold         -> every other worker: commands that were posted and that no store keeps
acquire      -> answered: a held command is one worker's to offer, until it says ``returned`` or dies
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import trio
from attrs import define, field

from wazuh_comms_trio.daemon.link import Link, LinkBroken, Message
from wazuh_comms_trio.errors import BackendUnavailable

# What services bring with them is imported when it is used, by then the workers are up: they are what is waited for at
# start-up.
if TYPE_CHECKING:
    from wazuh_comms_trio.backends.base import Command
    from wazuh_comms_trio.services.posted import Delivered

__all__ = ["Hub", "Member"]

logger = logging.getLogger(__name__)

#: Seconds from a post to its answer, at most; the worker that has it answers earlier.
POST_LIMIT: Final = 1.95


@define(eq=False)
class Member:
    """One worker, as the hub knows it. ``beat`` is its last report, ``heard`` when it came (trio's clock)."""

    name: str
    link: Link
    generation: int = 0
    ready: trio.Event = field(factory=trio.Event)
    #: Its link has ended.
    left: trio.Event = field(factory=trio.Event)
    #: Why it couldn't start, in its own words.
    failure: str | None = None
    #: It takes posts: it is ready, and hasn't been told to stop.
    in_service: bool = False
    beat: dict[str, Any] = field(factory=dict)
    heard: float = field(factory=trio.current_time)


@define(eq=False)
class _Question:
    """A post that a member has been asked for."""

    member: Member
    answer: Message | None = None
    decided: trio.Event = field(factory=trio.Event)


class Hub:
    def __init__(self) -> None:
        self.members: list[Member] = []
        self._granted: dict[str, Member] = {}
        self._questions: dict[int, _Question] = {}
        self._numbers = count(1)
        self._changed = trio.Event()

    @cached_property
    def _delivered(self) -> Delivered:
        from wazuh_comms_trio.services.posted import Delivered

        return Delivered()

    # --- members

    async def serve(self, member: Member, on_ready: Callable[[Message], None] | None = None) -> None:
        """Carries one member's messages until its link ends. The link's ``run`` is the caller's."""
        with self._joined(member):
            try:
                while True:
                    self._take(member, await member.link.receive(), on_ready)
            except LinkBroken as error:
                logger.debug("the link to worker %s ended: %s", member.name, error)

    @contextmanager
    def _joined(self, member: Member) -> Iterator[None]:
        self.members.append(member)
        try:
            yield
        finally:
            member.in_service = False
            member.left.set()
            self.members.remove(member)
            freed = [document_id for document_id, owner in self._granted.items() if owner is member]
            for document_id in freed:
                del self._granted[document_id]
            if freed:
                self._tell_others(member, "free", ids=freed)
            for question in list(self._questions.values()):
                if question.member is member:
                    question.decided.set()
            self._change()

    def _take(self, member: Member, message: Message, on_ready: Callable[[Message], None] | None) -> None:
        match message:
            case {"type": "beat", "report": dict(report)}:
                member.beat, member.heard = report, trio.current_time()
            case {"type": "ready"}:
                member.heard = trio.current_time()
                member.in_service = True
                member.ready.set()
                if on_ready is not None:
                    on_ready(message)
                self._change()
            case {"type": "failed", "reason": str(reason)}:
                member.failure = reason
            case {"type": "news", "agents": list(agents)}:
                self._tell_others(member, "news", agents=agents)
            case {"type": "delivered", "ids": dict(ids)}:
                for document_id, timeout in ids.items():
                    self._delivered.note_id(document_id, timeout)
                    self._granted.pop(document_id, None)
                self._tell_others(member, "delivered", ids=ids)
            case {"type": "hold", "commands": list(commands), "seconds": seconds}:
                self._tell_others(member, "hold", commands=commands, seconds=seconds)
            case {"type": "withdraw", "ids": list(ids)}:
                self._tell_others(member, "withdraw", ids=ids)
            case {"type": "acquire", "number": number, "ids": list(ids)}:
                member.link.send_nowait("granted", number=number, ids=self._grant(member, ids))
            case {"type": "returned", "ids": list(ids)}:
                freed = [document_id for document_id in ids if self._granted.get(document_id) is member]
                for document_id in freed:
                    del self._granted[document_id]
                self._tell_others(member, "free", ids=freed)
            case {"type": "posted", "number": int(number)} if number in self._questions:
                question = self._questions[number]
                question.answer = message
                question.decided.set()
            case {"type": "posted"}:
                pass  # too late
            case _:
                logger.error("worker %s sent a message that isn't known: %s", member.name, message.get("type"))

    def _tell_others(self, member: Member, type: str, **fields: Any) -> None:
        for other in self.members:
            if other is not member:
                other.link.send_nowait(type, **fields)

    def _grant(self, member: Member, document_ids: Sequence[str]) -> list[str]:
        granted = []
        for document_id in document_ids:
            if document_id not in self._delivered and self._granted.setdefault(document_id, member) is member:
                granted.append(document_id)
        return granted

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- posts

    async def post(self, commands: Sequence[Command]) -> Sequence[Command]:
        """As ``CommandDispatcher.post``, by whichever worker takes it; when one dies over it, by another. Raises
        ``BackendUnavailable``."""
        from wazuh_comms_trio.services.command_json import decode_commands, encode_commands

        request = json.loads(encode_commands(commands))["commands"]
        delivered = {c.document_id: c.timeout for c in commands if c.document_id in self._delivered}
        with trio.move_on_after(POST_LIMIT):
            while True:
                member = await self._next_in_service()
                answer = await self._ask(member, request, delivered)
                if answer is None:
                    continue  # it died: the next one is asked, and what it had stored is known there
                if "error" in answer:
                    raise BackendUnavailable(answer["error"])
                return decode_commands(json.dumps({"commands": answer["commands"]}).encode())
        raise BackendUnavailable

    async def _next_in_service(self) -> Member:
        while True:
            for member in self.members:
                if member.in_service:
                    # The first goes to the end: posts are spread over the workers.
                    self.members.remove(member)
                    self.members.append(member)
                    return member
            await self._changed.wait()

    async def _ask(self, member: Member, commands: list[Any], delivered: dict[str, float]) -> Message | None:
        number = next(self._numbers)
        question = self._questions[number] = _Question(member)
        try:
            member.link.send_nowait("post", number=number, commands=commands, delivered=delivered)
            await question.decided.wait()
            return question.answer
        finally:
            del self._questions[number]
