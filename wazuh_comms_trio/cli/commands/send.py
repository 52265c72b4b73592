"""``wazuh-comms commands send`` and ``watch``: writes a command into the store, where the daemon finds it, and waits
for its result."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from attrs import evolve
from trio import current_time, sleep

from wazuh_comms_trio.audit.log import current_user
from wazuh_comms_trio.backends import command_rules as rules
from wazuh_comms_trio.backends.interfaces import Action, Backends, Command, Target
from wazuh_comms_trio.cli.agents.names import AgentLabels, agent_id_of
from wazuh_comms_trio.cli.confirmation import confirm
from wazuh_comms_trio.cli.documents import command_document, command_text, outcome_text
from wazuh_comms_trio.cli.following import STORE_TIMEOUT, GroupProgress, Progress, outcomes, until_ended
from wazuh_comms_trio.cli.output import lines
from wazuh_comms_trio.cli.program import EXIT_FAILED, Failure
from wazuh_comms_trio.cli.stores import Stores, open_stores
from wazuh_comms_trio.errors import BackendUnavailable

#: A command for more agents than these asks first: all at once, they may be an outage.
_MANY: Final = 100
#: Seconds between two slices of a command that is spread.
_SLICE: Final = 0.1
#: Of the agents; where stderr is a file, which thousands of lines would fill.
_TOLD_SHARE: Final = 0.05


async def send(arguments: Namespace, args: Mapping[str, Any]) -> int:
    """Returns the exit status: with ``--wait`` 1 unless every result is a success."""
    async with open_stores(arguments) as stores:
        target, members = await _target(stores.backends, arguments)
        if len(members) > _MANY:
            confirm(f"this goes to {len(members)} agents", yes=arguments.yes)
        user = current_user()
        command = Command(
            uuid4().hex,
            target,
            Action(arguments.action, arguments.version, args or None),
            timeout=arguments.timeout,
            request_id=uuid4().hex,
            order_id=uuid4().hex,
            source="Users/Services",
            user=user.sudo_user or user.name,
            created_at=time.time(),
        )
        stores.prepare_change()
        spread = target.type == "group" and arguments.rate is not None
        parent, children = rules.expand(command, members, time.time()) if spread else (command, [])
        (stored,) = await stores.backends.commands.add([parent])
        to = f"{target.type} {target.id}"
        stores.changed("commands send", command.document_id, to=to, command=arguments.action)
        if spread:
            await _spread(stores, command, children, arguments.rate)
        ids = [rules.child_id(stored.document_id, member) for member in members] if target.type == "group" else []
        if not arguments.wait:
            stores.output.document(_document(stored, ids), stored.document_id)
            return 0
        return await _wait(stores, stored)


async def watch(arguments: Namespace) -> int:
    """Follows a command that was sent before, as ``send --wait`` does."""
    async with open_stores(arguments) as stores:
        command = await stores.backends.commands.get(arguments.id)
        if command is None:
            raise Failure(f"there is no command {arguments.id}")
        return await _wait(stores, command)


async def _target(backends: Backends, arguments: Namespace) -> tuple[Target, Sequence[str]]:
    """Whom the command is for, and the agents that it goes to. Raises ``Failure`` when there are none: nothing would
    ever end it."""
    if arguments.agent:
        agent_id = await agent_id_of(backends.agents, arguments.agent)
        if await backends.agents.get(agent_id) is None:
            raise Failure(f"there is no agent {agent_id}")
        return Target("agent", agent_id), [agent_id]
    group = arguments.group or "all"
    members = await backends.agents.members(group)
    if not members:
        raise Failure("there are no agents" if arguments.all else f"no agent is in the group {group}")
    return Target("group", group), members


async def _spread(stores: Stores, command: Command, children: Sequence[Command], rate: float) -> None:
    """Stores the children bit by bit, ``rate`` in a second; each one's time begins when it is stored. Interrupted, it
    says how many agents it was sent to; the others don't get it."""
    begun = answered = current_time()
    done = told = 0
    try:
        with Progress() as progress:
            while done < len(children):
                due = min(len(children), int((current_time() - begun) * rate) + 1)
                now = time.time()
                try:  # what is stored already stays as it is: the same slice may be stored again
                    await stores.backends.commands.add([evolve(child, created_at=now) for child in children[done:due]])
                except BackendUnavailable:
                    if current_time() - answered > STORE_TIMEOUT:
                        raise
                else:
                    done, answered = due, current_time()
                notable = done == len(children) or done - told >= len(children) * _TOLD_SHARE
                progress.show(
                    f"sent to {done} of {len(children)} agents, {current_time() - begun:.0f} s", notable=notable
                )
                told = done if notable else told
                if done < len(children):
                    await sleep(max(_SLICE, begun + done / rate - current_time()))
    except BaseException:
        left = f"was sent to {done} of {len(children)} agents; the others don't get it"
        print(f"the command {command.document_id} {left}", file=sys.stderr)
        raise


def _document(command: Command, children: Sequence[str]) -> dict[str, Any]:
    document = command_document(command)
    return {**document, "children": list(children)} if children else document


async def _wait(stores: Stores, command: Command) -> int:
    """Waits for results; returns the exit status: 1 unless each has ended as a success."""
    try:
        with Progress() as progress:
            ended = await until_ended(stores.backends.commands, command, progress)
    except Exception:
        raise
    except BaseException:  # Ctrl-C ends the waiting, not the command
        print(f"the command {command.document_id} goes on", file=sys.stderr)
        raise
    labels = AgentLabels(None if stores.output.as_json else stores.backends.agents)
    if command.target.type == "group":
        counts = GroupProgress.of(ended)
        named = await labels.of(one.target.id for one in ended)
        text = lines([*(f"{named[one.target.id]}  {outcome_text(one)}" for one in outcomes(ended)), counts.text])
        document = {**command_document(command), "children": [command_document(one) for one in ended]}
        stores.output.document({**document, "progress": counts.document}, text)
    else:
        label = await labels.of_target(command.target)
        stores.output.document(command_document(ended[0]), command_text(ended[0], label))
    return EXIT_FAILED if any(one.status != "success" for one in ended) else 0
