"""``wazuh-comms commands``: what agents are told to do."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import Any

from wazuh_comms_trio.cli import arguments as types
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_MISUSE, Failure

_STATUSES = ("pending", "sent", "success", "failed")


def add_parser(parent: Group) -> None:
    commands = parent.group("commands", help="commands: send, list, show, cancel")
    send = commands.command(
        "send",
        _send,
        help="send a command to an agent, a group, or all agents",
        description="Sends a command. An agent that is away gets it with its next poll, unless its timeout runs out.",
    )
    target = send.add_mutually_exclusive_group(required=True)
    target.add_argument("--agent", metavar="UUID", type=types.agent_uuid)
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
        help="seconds to wait for delivery, and again for the result (default: %(default)s)",
    )
    send.add_argument(
        "--wait", action="store_true", help="wait for the result; the exit status is 0 if it is a success, else 1"
    )
    listing = commands.command("list", _list, help="commands, the newest first")
    listing.add_argument("--status", choices=_STATUSES, metavar="S", help="one of " + ", ".join(_STATUSES))
    listing.add_argument("--agent", metavar="UUID", type=types.agent_uuid)
    listing.add_argument(
        "--limit", metavar="N", type=types.count, default=1000, help="at most so many (default: %(default)s)"
    )
    show = commands.command("show", _show, help="one command, with its result")
    cancel = commands.command("cancel", _cancel, help="cancel a command that is still pending")
    for parser in (show, cancel):
        parser.add_argument("id", metavar="ID", type=types.text)


def _send(arguments: Namespace) -> Any:
    """Checks what argparse can't, then hands over."""
    try:
        args = types.unique(arguments.arg)
        if arguments.action == "set-group":
            groups = args.get("groups")
            if not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
                raise ArgumentTypeError("set-group needs a list of groups: --arg 'groups=[\"web\"]'")
    except ArgumentTypeError as error:
        raise Failure(str(error), EXIT_MISUSE) from None
    from wazuh_comms_trio.cli.commands.send import send

    return send(arguments, args)


async def _list(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.documents import command_document, outcome_text
    from wazuh_comms_trio.cli.output import table, timestamp
    from wazuh_comms_trio.cli.stores import open_stores

    async with open_stores(arguments) as stores:
        found = await stores.backends.commands.list(
            status=arguments.status, agent_id=arguments.agent, limit=arguments.limit
        )
        rows = [
            (
                command.document_id,
                f"{command.target.type} {command.target.id}",
                command.action.name,
                outcome_text(command),
                timestamp(command.created_at),
            )
            for command in found
        ]
        text = table(("ID", "TARGET", "ACTION", "STATUS", "CREATED"), rows) if rows else ""
        stores.output.document([command_document(command) for command in found], text)
        if not rows:
            stores.output.note("no such commands")
    return 0


async def _show(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.documents import command_document, command_text, unreadable_document
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
        stores.output.document(command_document(command), command_text(command))
    return 0


async def _cancel(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.documents import command_document, outcome_text
    from wazuh_comms_trio.cli.stores import open_stores
    from wazuh_comms_trio.errors import DocumentUnreadable

    async with open_stores(arguments) as stores:
        was_pending = True
        try:
            before = await stores.backends.commands.get(arguments.id)
            if before is None:
                raise Failure(f"there is no command {arguments.id}")
            was_pending = before.status == "pending"
        except DocumentUnreadable:
            pass  # it can be cancelled all the same
        stores.prepare_change()
        command = await stores.backends.commands.cancel(arguments.id)
        if command is None:
            raise Failure(f"there is no command {arguments.id}")
        if command.status != "failed" or command.result is None or command.result.message != "cancelled":
            raise Failure(f"{arguments.id} can't be cancelled any more: {outcome_text(command)}")
        if was_pending:
            stores.changed("commands cancel", command.document_id, command=command.action.name)
        stores.output.document(command_document(command), f"cancelled {command.document_id}")
    return 0
