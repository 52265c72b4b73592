"""Not yet."""

from wazuh_comms_trio.cli.tree import Group


def add_parser(parent: Group) -> None:
    del parent
