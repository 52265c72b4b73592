"""``wazuh-comms commands``: what agents are told to do."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from wazuh_comms_trio.cli import arguments as types
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_MISUSE, Failure

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.interfaces import Backends, Command
    from wazuh_comms_trio.cli.following import GroupProgress
    from wazuh_comms_trio.cli.output import Listing
    from wazuh_comms_trio.cli.stores import Stores

#: What today's agents act on (PROTOCOL, section 3); another action ends as failed.
KNOWN_ACTIONS = ("set-group", "fetch-config", "restart")
_HEADS = ("ID", "TARGET", "ACTION", "STATUS", "CREATED")
_SPARE = ("CREATED", "ACTION", "ID")
_STATUSES = ("pending", "sent", "success", "failed")


def add_parser(parent: Group) -> None:
    commands = parent.group("commands", help="commands: send, watch, list, show, cancel")
    send = commands.command(
        "send",
        _send,
        help="send a command to an agent, a group, or all agents",
        description="Sends a command. An agent that is away gets it with its next poll, unless its timeout runs out.",
    )
    target = send.add_mutually_exclusive_group(required=True)
    target.add_argument("--agent", metavar="UUID|NAME", type=types.agent_reference)
    target.add_argument("--group", metavar="G", type=types.group)
    target.add_argument("--all", action="store_true", help="every agent")
    send.add_argument(
        "action", metavar="ACTION", type=types.text, help="agents know set-group, fetch-config and restart"
    )
    send.add_argument("--version", metavar="V", type=types.text, help="of the action")
    send.add_argument(
        "--arg",
        metavar="NAME=VALUE",
        type=types.named_value,
        action="append",
        default=[],
        help="an argument of the action, may be repeated; the value is JSON if it parses as such, else text",
    )
    send.add_argument(
        "--timeout",
        metavar="S",
        type=types.seconds,
        default=100,
        help="seconds (or 5m, 1h) to wait for delivery, and again for the result (default: %(default)s)",
    )
    send.add_argument(
        "--wait", action="store_true", help="wait for the result; the exit status is 0 if it is a success, else 1"
    )
    send.add_argument("--unknown-action", action="store_true", help="send an action that agents of today don't know")
    send.add_argument("--yes", action="store_true", help="don't ask before more than 100 agents")
    send.add_argument(
        "--rate",
        metavar="N/s",
        type=types.rate,
        help="to so many agents a second (50/s), minute (/m) or hour (/h), not all at once; it stays as long",
    )
    watch = commands.command(
        "watch", _watch, help="wait until a command has ended; the exit status is 0 if all is a success, else 1"
    )
    listing = commands.command("list", _list, help="commands, the newest first; of a group's command, the counts")
    listing.add_argument("--status", choices=_STATUSES, metavar="S", help="one of " + ", ".join(_STATUSES))
    listing.add_argument("--agent", metavar="UUID|NAME", type=types.agent_reference, help="the agent's own commands")
    listing.add_argument("--children", action="store_true", help="also each agent's part of a group's command")
    listing.add_argument("--of", metavar="ID", type=types.text, help="the parts of this group's command")
    listing.add_argument(
        "--limit", metavar="N", type=types.count, default=1000, help="at most so many (default: %(default)s)"
    )
    show = commands.command("show", _show, help="one command, with its result")
    cancel = commands.command(
        "cancel", _cancel, help="cancel a command that is still pending; of a group's command, what of it is"
    )
    for parser in (watch, show, cancel):
        parser.add_argument("id", metavar="ID", type=types.text)


def _send(arguments: Namespace) -> Any:
    """Checks what argparse can't, then hands over."""
    try:
        args = types.unique(arguments.arg)
        if arguments.action == "set-group":
            groups = args.get("groups")
            if not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
                raise ArgumentTypeError("set-group needs a list of groups: --arg 'groups=[\"web\"]'")
        if arguments.action not in KNOWN_ACTIONS and not arguments.unknown_action:
            known = ", ".join(KNOWN_ACTIONS)
            raise ArgumentTypeError(f"agents know {known}; to send them {arguments.action!r}, say --unknown-action")
        if arguments.rate is not None and arguments.agent:
            raise ArgumentTypeError("--rate is for a group, or for all")
    except ArgumentTypeError as error:
        raise Failure(str(error), EXIT_MISUSE) from None
    from wazuh_comms_trio.cli.commands.send import send

    return send(arguments, args)


def _watch(arguments: Namespace) -> Any:
    from wazuh_comms_trio.cli.commands.send import watch

    return watch(arguments)


async def _list(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.agents.names import AgentLabels
    from wazuh_comms_trio.cli.following import progress_of
    from wazuh_comms_trio.cli.stores import open_stores

    async with open_stores(arguments) as stores:
        labels = AgentLabels(None if arguments.json else stores.backends.agents)
        with stores.output.listing(_HEADS, _SPARE) as listing:
            async with aclosing(_found(stores.backends, arguments)) as pages:
                async for page in pages:
                    progress = await progress_of(stores.backends.commands, page)
                    named = await labels.of(one.target.id for one in page if one.target.type == "agent")
                    _add_page(listing, page, progress, named)
        if not listing.rows:
            stores.output.note("no such commands")
    return 0


async def _found(backends: Backends, arguments: Namespace) -> AsyncGenerator[Sequence[Command], None]:
    """The commands that ``commands list`` shows, in pages. Raises ``Failure``."""
    from wazuh_comms_trio.cli.agents.names import agent_id_of

    agent = None if arguments.agent is None else await agent_id_of(backends.agents, arguments.agent)
    if arguments.of is None:
        left = arguments.limit
        children = arguments.children or agent is not None  # what an agent was told is its own, however it came
        async with aclosing(
            backends.commands.pages(status=arguments.status, agent_id=agent, children=children)
        ) as pages:
            async for page in pages:
                yield page[:left]
                left -= len(page)
                if left <= 0:
                    return
        return
    parent = await backends.commands.get(arguments.of)
    if parent is None or parent.target.type != "group":
        raise Failure(f"there is no group's command {arguments.of}")
    found = await backends.commands.children([arguments.of])
    wanted = [one for one in found if arguments.status in (None, one.status) and agent in (None, one.target.id)]
    yield sorted(wanted, key=lambda one: one.target.id)[: arguments.limit]


def _add_page(
    listing: Listing, found: Sequence[Command], progress: Mapping[str, GroupProgress], named: Mapping[str, str]
) -> None:
    """``named``: agents' labels by id."""
    from wazuh_comms_trio.cli.documents import command_document, outcome_text
    from wazuh_comms_trio.cli.output import timestamp

    documents, rows = [], []
    for command in found:
        document, status = command_document(command), outcome_text(command)
        counts = progress.get(command.document_id)
        if counts is not None:
            document["progress"] = counts.document
            status = status if command.status == "failed" else counts.text
        documents.append(document)
        target = f"{command.target.type} {named.get(command.target.id, command.target.id)}"
        rows.append((command.document_id, target, command.action.name, status, timestamp(command.created_at)))
    listing.page(documents, rows)


async def _show(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.agents.names import AgentLabels
    from wazuh_comms_trio.cli.documents import command_document, command_text, unreadable_document
    from wazuh_comms_trio.cli.following import progress_of
    from wazuh_comms_trio.cli.stores import open_stores
    from wazuh_comms_trio.errors import DocumentUnreadable

    async with open_stores(arguments) as stores:
        try:
            command = await stores.backends.commands.get(arguments.id)
        except DocumentUnreadable as exc:
            stores.output.document(*unreadable_document("document_id", arguments.id, exc))
            return 0
        if command is None:
            raise Failure(f"there is no command {arguments.id}")
        document, children = command_document(command), None
        for counts in (await progress_of(stores.backends.commands, [command])).values():
            document["progress"] = counts.document
            children = counts.text
        labels = AgentLabels(None if arguments.json else stores.backends.agents)
        label = await labels.of_target(command.target)
        stores.output.document(document, command_text(command, label, children))
    return 0


async def _cancel(arguments: Namespace) -> int:
    from wazuh_comms_trio.backends.command_rules import CANCELLED
    from wazuh_comms_trio.cli.documents import command_document, outcome_text
    from wazuh_comms_trio.cli.stores import open_stores
    from wazuh_comms_trio.errors import DocumentUnreadable

    async with open_stores(arguments) as stores:
        store = stores.backends.commands
        was_pending = True
        try:
            before = await store.get(arguments.id)
            if before is None:
                raise Failure(f"there is no command {arguments.id}")
            if before.target.type == "group" and before.status != "pending":
                return await _cancel_group(stores, before)
            was_pending = before.status == "pending"
        except DocumentUnreadable:
            pass  # it can be cancelled all the same
        stores.prepare_change()
        try:
            command = await store.cancel(arguments.id)
        except DocumentUnreadable as exc:
            raise Failure(f"{exc}; `wazuh-comms indexer remove {exc.name}` removes it") from exc
        if command is None:
            raise Failure(f"there is no command {arguments.id}")
        if command.status != "failed" or command.result is None or command.result.message != CANCELLED:
            raise Failure(f"{arguments.id} can't be cancelled any more: {outcome_text(command)}")
        if was_pending:
            stores.changed("commands cancel", command.document_id, command=command.action.name)
        stores.output.document(command_document(command), f"cancelled {command.document_id}")
    return 0


async def _cancel_group(stores: Stores, parent: Command) -> int:
    """Cancels a group's command; how many of those that were pending a moment before are cancelled: others may have
    been delivered meanwhile."""
    from wazuh_comms_trio.backends.command_rules import CANCELLED
    from wazuh_comms_trio.cli.documents import command_document
    from wazuh_comms_trio.cli.following import GroupProgress

    store = stores.backends.commands
    before = {one.document_id for one in await store.children([parent.document_id]) if one.status == "pending"}
    if not before:
        counts = GroupProgress.of(await store.children([parent.document_id]))
        raise Failure(f"nothing of {parent.document_id} can be cancelled any more: {counts.counts}")
    stores.prepare_change()
    await store.cancel(parent.document_id)
    children = await store.children([parent.document_id])
    cancelled = [
        one
        for one in children
        if one.document_id in before and one.result is not None and one.result.message == CANCELLED
    ]
    stores.changed("commands cancel", parent.document_id, command=parent.action.name, agents=len(cancelled))
    counts = GroupProgress.of(children)
    document = {**command_document(parent), "cancelled": len(cancelled), "progress": counts.document}
    agents = "1 agent" if len(cancelled) == 1 else f"{len(cancelled)} agents"
    stores.output.document(document, f"cancelled {parent.document_id} for {agents}; {counts.text}")
    return 0
