"""``wazuh-comms daemon``: mounts ``daemon_command``, which needs no configuration and only the bare installation."""

from __future__ import annotations

from importlib import import_module

from wazuh_comms_trio.cli.parser import Group


def add_parser(parent: Group) -> None:
    try:
        command = import_module("wazuh_comms_trio.cli.commands.daemon_request")
    except ModuleNotFoundError:
        return
    command.add_parser(parent.commands).set_defaults(work=command.run)
