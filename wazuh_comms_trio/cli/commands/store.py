"""``wazuh-comms store``: whether embedded state is whole."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_FAILED


def add_parser(parent: Group) -> None:
    store = parent.group("store", help="the files that are kept on this machine")
    verify = store.command(
        "verify",
        _verify,
        help="read everything and say what is damaged",
        description="Reads events, databases and quarantine, with their checksums and counts, and says what is damaged "
        "and what would be saved of it. Exit status 1 when something is. The daemon may go on meanwhile; a file that "
        "it writes to is repaired only when it is stopped.",
    )
    verify.add_argument(
        "--repair", action="store_true", help="save what can be saved; damaged files are kept under another name"
    )
    prune = store.command(
        "prune",
        _prune,
        help="delete what is older than embedded.keep says",
        description="Deletes what is older than communications_api.embedded.keep says, as the daemon does by itself "
        "every ten minutes.",
    )
    prune.add_argument("--dry-run", action="store_true", help="only say what would be deleted")


async def _prune(arguments: Namespace) -> int:
    from attrs import asdict

    from wazuh_comms_trio.backends.embedded.pruning import due, prune
    from wazuh_comms_trio.backends.embedded.stores import open_sqlite
    from wazuh_comms_trio.cli.stores import embedded_folder, open_session

    session = open_session(arguments)
    folder = embedded_folder(session.config)
    keep = session.config.communications_api.embedded.keep
    with session.acting_as_owner(folder):
        async with open_sqlite(folder) as stores:
            if arguments.dry_run:
                found = await stores.database.read(lambda connection: due(connection, keep))
            else:
                session.prepare_change()
                found = await prune(stores.database, keep)
                if found:
                    session.changed("store prune", str(folder), **asdict(found))
    verb = "would be deleted" if arguments.dry_run else "deleted"
    session.output.document({"deleted": not arguments.dry_run, **asdict(found)}, f"{verb}: {found}")
    return 0


def _verify(arguments: Namespace) -> int:
    from wazuh_comms_trio.backends.embedded.state_lock import hold_state
    from wazuh_comms_trio.backup.verify import verify
    from wazuh_comms_trio.cli.stores import open_session

    session = open_session(arguments)
    folder = session.config.communications_api.embedded.path
    with session.acting_as_owner(folder), hold_state(folder):
        if arguments.repair:
            session.prepare_change()
        found = []
        for finding in verify(session.config, repair=arguments.repair):
            found.append(finding)
            if finding.repaired:
                session.changed("store verify", finding.place, damage=finding.damage, remedy=finding.remedy)
    documents = [
        {"place": each.place, "damage": each.damage, "remedy": each.remedy or None, "repaired": each.repaired}
        for each in found
    ]
    lines = []
    for each in found:
        intent = "done" if each.repaired else "with --repair" if not arguments.repair else "not done"
        lines.append(f"{each.place}: {each.damage}" + (f" ({intent}: {each.remedy})" if each.remedy else ""))
    text = "\n".join(lines) or f"{folder}: nothing is damaged"
    session.output.document({"path": str(Path(folder)), "damaged": documents}, text)
    return EXIT_FAILED if any(not each.repaired for each in found) else 0
