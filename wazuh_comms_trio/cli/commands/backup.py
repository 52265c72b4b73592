"""``wazuh-comms backup``: all embedded state in one file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_FAILED, complain


def add_parser(parent: Group) -> None:
    backup = parent.command(
        "backup",
        _backup,
        help="write all state that this node keeps to a file",
        description="Writes what this node keeps to FILE: agents, commands, documents, events, quarantine, audit log; "
        "with `backend: wazuh` the quarantine and the audit log, the rest being in the indexer. The daemon may go on "
        "meanwhile.",
    )
    backup.add_argument("file", metavar="FILE", type=Path)


def _backup(arguments: Namespace) -> int:
    from wazuh_comms_trio.backup.create import backup
    from wazuh_comms_trio.cli.documents import backup_document
    from wazuh_comms_trio.cli.output import Output
    from wazuh_comms_trio.cli.stores import read_config

    file = arguments.file.absolute()
    contents = backup(read_config(arguments), file)
    incomplete = "; not complete" if contents.damaged else ""
    text = f"{file}: {len(contents.members)} files, {contents.total_bytes} bytes{incomplete}"
    Output(as_json=arguments.json).document(backup_document(file, contents), text)
    for sentence in contents.damaged:
        complain("wazuh-comms", f"not in the backup: {sentence}")
    return EXIT_FAILED if contents.damaged else 0
