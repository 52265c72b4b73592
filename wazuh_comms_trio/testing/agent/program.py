"""The whole agent: stateless events, stateful events and commands in three loops, beside one that keeps its token
fresh.

What a loop sleeps, what it does again and what makes an agent exit are those of a real agent; they decide how a fleet
treats a server that answers with errors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

import trio
from attrs import field, frozen

from wazuh_comms_trio.testing.agent.client import (
    AgentClient,
    command_report,
    stateful_event,
    stateless_event,
    token_expiry,
)
from wazuh_comms_trio.testing.agent.http import ExchangeFailed, Reply

__all__ = ["AgentExits", "AgentProgram", "AgentSettings", "Exchange", "Outbox"]

#: With one of these, on authentication, an agent exits at its start.
FATAL_MESSAGES: Final = ("Invalid key", "Agent does not exist")
REAUTHENTICATE_BEFORE_EXPIRY: Final = 2.0
AFTER_SUCCESS: Final = 1.0
KEPT_EXCHANGES: Final = 10_000
SUCCESS: Final = 0
FAILURE: Final = 1

Command = Mapping[str, Any]
#: Carries out a command; returns its result's code and message.
Execute = Callable[[Command], Awaitable[tuple[int, str]]]


class AgentExits(Exception):
    """Raised where the server answered what makes an agent exit at its start."""


@frozen
class AgentSettings:
    """An agent's settings, in seconds and bytes. A batch goes out after ``batch_interval``, or once ``batch_bytes`` are
    there."""

    retry_interval: float = 30.0
    batch_interval: float = 10.0
    batch_bytes: int = 1_000_000


@frozen
class Exchange:
    """One request of the program and what came of it. ``time`` is trio's clock at the end; no reply: ``status``
    None.
    """

    kind: Literal["authentication", "stateless", "stateful", "commands"]
    time: float
    status: int | None
    reply: Reply | None = field(default=None, repr=False)


class Outbox:
    """Events of one kind that wait to be sent, as the agent's own database keeps them: until a 2xx."""

    def __init__(self) -> None:
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._changed = trio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: bytes) -> None:
        self._events.append(event)
        self._bytes += len(event)
        self._changed.set()
        self._changed = trio.Event()

    async def next_batch(self, interval: float, limit: int) -> list[bytes]:
        """Waits for a batch: some events, and ``interval`` passed or ``limit`` bytes are there. They stay until
        ``remove``.
        """
        with trio.move_on_after(interval):
            while self._bytes < limit:
                await self._changed.wait()
        while not self._events:
            await self._changed.wait()
        batch: list[bytes] = []
        size = 0
        for event in self._events:
            if batch and size + len(event) > limit:
                break
            batch.append(event)
            size += len(event)
        return batch

    def remove(self, batch: list[bytes]) -> None:
        for event in batch:
            self._events.popleft()
            self._bytes -= len(event)


class AgentProgram:
    """Give it news with ``add_stateless`` and ``add_stateful``; ``run`` sends them, polls, carries commands out and
    reports them. It never reads the results of single events.

    ``execute`` stands in for ``carry_out``. ``kept_commands``: the ids of commands that it has had, as in the agent's
    own database; one that comes again is reported as failed, after the report of the first.
    """

    def __init__(
        self, client: AgentClient, settings: AgentSettings | None = None, *, execute: Execute | None = None
    ) -> None:
        self.client = client
        self.settings: AgentSettings = settings or AgentSettings()
        self.execute: Execute = execute or self.carry_out
        self.kept_commands: set[str] = set()
        self.stateless: Outbox = Outbox()
        self.stateful: Outbox = Outbox()
        self.commands: list[Command] = []  # as received, in order
        self.exchanges: deque[Exchange] = deque(maxlen=KEPT_EXCHANGES)
        self.polling_died: str | None = None  # why, once a reply has ended the polling for good
        self._token_wanted = trio.Event()
        self._token_there = trio.Event()
        self._exchanged = trio.Event()

    def add_stateless(self, module: str, collector: str, data: Mapping[str, Any]) -> None:
        self.stateless.add(stateless_event(module, collector, data))

    def add_stateful(
        self,
        id: str,
        module: str,
        operation: str,
        data: Mapping[str, Any] | None = None,
        *,
        collector: str | None = None,
    ) -> None:
        self.stateful.add(stateful_event(id, module, operation, data, collector=collector))

    async def carry_out(self, command: Command) -> tuple[int, str]:
        """``set-group`` and ``fetch-config`` fetch the file of each group, ``<group>.yml``, and fail where one can't be
        had; anything else is done by doing nothing.
        """
        action = command.get("action") or {}
        groups: Any = self.client.groups
        if action.get("name") == "set-group":
            groups = (action.get("args") or {}).get("groups")
            if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
                return FAILURE, "the groups are no list of names"
        elif action.get("name") != "fetch-config":
            await trio.lowlevel.checkpoint()
            return SUCCESS, ""
        for group in groups:
            try:
                reply = await self.client.get_group_file(group)
            except ExchangeFailed as exc:
                return FAILURE, f"{group}.yml: {exc}"
            if reply.status != 200:
                return FAILURE, f"{group}.yml: {reply.status}"
        self.client.set_groups(groups)
        await trio.lowlevel.checkpoint()
        return SUCCESS, ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the agent until cancelled. Raises ``AgentExits`` when the server tells the agent to exit before it has
        its first token; later it tries again every ``retry_interval``. Started: it has its first token.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_token)
            await self._token_there.wait()
            task_status.started()
            nursery.start_soon(self._send_loop, "stateless", self.stateless, self.client.post_stateless)
            nursery.start_soon(self._send_loop, "stateful", self.stateful, self.client.post_stateful)
            nursery.start_soon(self._command_loop)

    async def wait_until(self, condition: Callable[[AgentProgram], bool]) -> None:
        """Returns as soon as a condition holds; looked at after every exchange."""
        while not condition(self):
            await self._exchanged.wait()

    # ------------------------------------------------------------------------------------------------------------------

    async def _keep_token(self) -> None:
        while True:
            reply = await self._exchange("authentication", self.client.authenticate)
            if reply is None or reply.status != 200:
                starts = not self._token_there.is_set()
                if starts and reply is not None and reply.status in (401, 403) and _message(reply) in FATAL_MESSAGES:
                    raise AgentExits(_message(reply))
                await trio.sleep(self.settings.retry_interval)
                continue
            self._token_wanted = trio.Event()
            self._token_there.set()
            assert self.client.token is not None
            life = token_expiry(self.client.token) - REAUTHENTICATE_BEFORE_EXPIRY - self.client.wall_clock()
            with trio.move_on_after(max(1.0, life)):
                await self._token_wanted.wait()

    async def _send_loop(
        self, kind: Literal["stateless", "stateful"], outbox: Outbox, post: Callable[[list[bytes]], Awaitable[Reply]]
    ) -> None:
        while True:
            batch = await outbox.next_batch(self.settings.batch_interval, self.settings.batch_bytes)

            async def send(batch: list[bytes] = batch) -> Reply:
                return await post(batch)

            while True:
                reply = await self._exchange(kind, send)
                if reply is not None and 200 <= reply.status < 300:
                    outbox.remove(batch)
                    break
                await self._sleep_after(reply)
            await trio.sleep(AFTER_SUCCESS)

    async def _command_loop(self) -> None:
        while True:
            reply = await self._exchange("commands", self.client.poll)
            if reply is None or not 200 <= reply.status < 300:
                await self._sleep_after(reply)
                continue
            if not await self.take(reply):
                return
            await trio.sleep(AFTER_SUCCESS)

    async def take(self, reply: Reply) -> bool:
        """Carries out and reports what a poll's reply brought. False: polling has died of it."""
        try:
            commands = list(reply.json().get("commands") or ())
        except (ValueError, AttributeError, TypeError):
            self.polling_died = f"{reply.status} {reply.body[:100]!r}"
            return False
        for command in commands:
            self.commands.append(command)
            document_id = command["document_id"]
            if document_id in self.kept_commands:
                code, message = FAILURE, "the command can't be stored: it is there"
            else:
                self.kept_commands.add(document_id)
                code, message = await self.execute(command)
            self.stateful.add(command_report(document_id, code, message))
        self._tell()
        return True

    async def _sleep_after(self, reply: Reply | None) -> None:
        """Sleeps after a failure."""
        if reply is not None and reply.status in (401, 403):
            self._token_wanted.set()
        await trio.sleep(AFTER_SUCCESS if reply is not None and reply.status == 408 else self.settings.retry_interval)

    async def _exchange(
        self,
        kind: Literal["authentication", "stateless", "stateful", "commands"],
        call: Callable[[], Awaitable[Reply]],
    ) -> Reply | None:
        try:
            reply = await call()
        except ExchangeFailed:
            reply = None
        status = None if reply is None else reply.status
        self.exchanges.append(Exchange(kind, trio.current_time(), status, reply))
        self._tell()
        return reply

    def _tell(self) -> None:
        self._exchanged.set()
        self._exchanged = trio.Event()


def _message(reply: Reply) -> str:
    try:
        return str(reply.json()["message"])
    except (ValueError, KeyError, TypeError):
        return ""
