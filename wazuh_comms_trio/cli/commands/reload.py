"""``wazuh-comms reload``: the running daemon reads its configuration again."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from wazuh_comms_trio.cli.command_socket import EXIT_NOT_RUNNING, ask_daemon
from wazuh_comms_trio.cli.output import Output
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_FAILED, Failure

#: Seconds. A reload starts workers, and they may have to open a large state.
RELOAD_TIMEOUT: Final = 90.0


def add_parser(parent: Group) -> None:
    parent.command(
        "reload",
        _reload,
        help="have the running daemon read its configuration again",
        description="Checks the configuration and puts it in force without a failed request. When it can't be, nothing"
        " changes, the reasons are printed, and the exit status is 1. Exit status 3: the daemon doesn't run.",
    )


def _reload(arguments: Namespace) -> int:
    try:
        outcome = ask_daemon(arguments, "POST", "/api/v1/reload", RELOAD_TIMEOUT)
    except Failure as error:
        if error.status != EXIT_NOT_RUNNING:
            raise
        raise Failure(f"{error}; where `command_socket` was changed, that needs a restart", error.status) from error
    output = Output(as_json=arguments.json)
    for warning in outcome["warnings"]:
        output.note(f"warning: {warning}")
    for name in outcome["needs_restart"]:
        output.note(f"{name} has changed; that needs a restart, and stays as it was until then")
    if outcome["reloaded"]:
        output.document(outcome, "The configuration is in force.")
        return 0
    if arguments.json:
        output.document(outcome, "")
        return EXIT_FAILED
    raise Failure("\n".join(f"not reloaded: {problem}" for problem in outcome["problems"]))
