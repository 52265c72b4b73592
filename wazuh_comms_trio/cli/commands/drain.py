"""``wazuh-comms drain``: balancers are to leave this node out, or to send to it again."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from wazuh_comms_trio.cli.command_socket import EXIT_NOT_RUNNING, ask_daemon
from wazuh_comms_trio.cli.output import Output
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import Failure

#: Seconds.
DRAIN_TIMEOUT: Final = 15.0


def add_parser(parent: Group) -> None:
    parser = parent.command(
        "drain",
        _drain,
        help="have balancers leave this node out",
        description="From now on `ready` is 503, so that balancers send this node nothing more; whatever comes all the"
        " same is served, and parked polls wait on until their time is over. A restart ends it. Exit status"
        f" {EXIT_NOT_RUNNING}: the daemon doesn't run.",
    )
    parser.add_argument("--undo", action="store_true", help="`ready` says again how the node is")


def _drain(arguments: Namespace) -> int:
    outcome = ask_daemon(arguments, "DELETE" if arguments.undo else "POST", "/api/v1/drain", DRAIN_TIMEOUT)
    if arguments.undo and outcome["drained"]:
        raise Failure("the daemon is stopping, and stays drained")
    parked = outcome["parked"]
    polls = "1 poll is" if parked == 1 else f"{parked} polls are"
    text = "The node is in service again." if arguments.undo else f"The node is drained. {polls} parked."
    Output(as_json=arguments.json).document(outcome, text)
    return 0
