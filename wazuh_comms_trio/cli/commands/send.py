"""``wazuh-comms commands send``: writes a command into the store, where the daemon finds it, and waits for its
result."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import trio

from wazuh_comms_trio.audit.log import current_user
from wazuh_comms_trio.backends.interfaces import Action, Backends, Command, Target
from wazuh_comms_trio.cli.documents import command_document, command_text, outcome_text
from wazuh_comms_trio.cli.output import lines
from wazuh_comms_trio.cli.program import EXIT_FAILED, Failure, printable
from wazuh_comms_trio.cli.stores import Stores, open_stores
from wazuh_comms_trio.errors import BackendUnavailable

#: Seconds between two looks at the commands that are waited for.
_LOOK_INTERVAL: Final = 0.2
#: Seconds that the store may be unavailable meanwhile.
_STORE_TIMEOUT: Final = 30.0
_ENDED: Final = frozenset({"success", "failed"})


async def send(arguments: Namespace, args: Mapping[str, Any]) -> int:
    """Returns the exit status: with ``--wait`` 1 unless every result is a success."""
    async with open_stores(arguments) as stores:
        members = await _members(stores.backends, arguments)
        user = current_user()
        command = Command(
            uuid4().hex,
            Target("agent", arguments.agent) if arguments.agent else Target("group", arguments.group or "all"),
            Action(arguments.action, arguments.version, args or None),
            timeout=arguments.timeout,
            request_id=uuid4().hex,
            order_id=uuid4().hex,
            source="Users/Services",
            user=user.sudo_user or user.name,
            created_at=time.time(),
        )
        stores.prepare_change()
        (stored,) = await stores.backends.commands.add([command])
        to = f"{command.target.type} {command.target.id}"
        stores.changed("commands send", command.document_id, to=to, command=arguments.action)
        ids = [f"{stored.document_id}_{member}" for member in members] if command.target.type == "group" else []
        if not arguments.wait:
            stores.output.document(_document(stored, ids), stored.document_id)
            return 0
        return await _wait(stores, stored, ids)


async def _members(backends: Backends, arguments: Namespace) -> Sequence[str]:
    """The agents that the command goes to. Raises ``Failure`` when there are none: nothing would ever end it."""
    if arguments.agent:
        if await backends.agents.get(arguments.agent) is None:
            raise Failure(f"there is no agent {arguments.agent}")
        return [arguments.agent]
    members = await backends.agents.members(arguments.group or "all")
    if not members:
        raise Failure("there are no agents" if arguments.all else f"no agent is in the group {arguments.group}")
    return members


def _document(command: Command, children: Sequence[str]) -> dict[str, Any]:
    document = command_document(command)
    return {**document, "children": list(children)} if children else document


async def _wait(stores: Stores, command: Command, children: Sequence[str]) -> int:
    """Until each has ended, which every command does: by its result, or by its timeout."""
    try:
        with _Progress() as progress:
            ended = await _ended(stores, children or [command.document_id], progress)
    except Exception:
        raise
    except BaseException:  # Ctrl-C ends the waiting, not the command
        print(f"the command {command.document_id} goes on", file=sys.stderr)
        raise
    failed = [one for one in ended if one.status != "success"]
    if children:
        text = lines(f"{one.target.id}  {outcome_text(one)}" for one in ended)
        document = {**command_document(command), "children": [command_document(one) for one in ended]}
        stores.output.document(document, text)
    else:
        stores.output.document(command_document(ended[0]), command_text(ended[0]))
    return EXIT_FAILED if failed else 0


async def _ended(stores: Stores, ids: Sequence[str], progress: _Progress) -> Sequence[Command]:
    commands = stores.backends.commands
    found: dict[str, Command] = {}
    started = answered = trio.current_time()
    while True:
        looked = trio.current_time()
        try:
            for one in ids:
                if one not in found or found[one].status not in _ENDED:
                    command = await commands.get(one)
                    if command is None:
                        raise Failure(f"the command {one} is gone")
                    found[one] = command
            # Without a daemon no other process would end overdue commands.
            await commands.expire()
        except BackendUnavailable as error:
            if looked - answered > _STORE_TIMEOUT:
                raise
            progress.show(f"waiting: {error.message}")
        else:
            answered = looked
            counts = Counter[str](command.status for command in found.values())
            if sum(counts[status] for status in _ENDED) == len(ids):
                return [found[one] for one in ids]
            states = ", ".join(f"{number} {status}" if len(ids) > 1 else status for status, number in counts.items())
            progress.show(f"{states}, {trio.current_time() - started:.0f} s")
        await trio.sleep(max(_LOOK_INTERVAL, 2 * (trio.current_time() - looked)))  # of thousands, a look takes longer


class _Progress:
    """One line on stderr that is rewritten; where stderr isn't a terminal, a line for each change of state."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = ""

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        if self._terminal:
            print(f"\r\x1b[K{printable(text)}", end="", file=sys.stderr, flush=True)
            self._shown = text
        elif (state := text.rpartition(",")[0] or text) != self._shown:
            print(printable(state), file=sys.stderr, flush=True)
            self._shown = state
