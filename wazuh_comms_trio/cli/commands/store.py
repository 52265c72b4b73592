"""``wazuh-comms store``: whether embedded state is whole."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_FAILED, complain

if TYPE_CHECKING:
    from wazuh_comms_trio.backup.verify import Finding
    from wazuh_comms_trio.config.models import Config


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
    prune.add_argument(
        "--unknown-agents",
        action="store_true",
        help="instead, at once: documents of agents that aren't enrolled and were removed by an earlier version, which "
        "noted no date",
    )


async def _prune(arguments: Namespace) -> int:
    if arguments.unknown_agents:
        return await _prune_unknown(arguments)
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


async def _prune_unknown(arguments: Namespace) -> int:
    from wazuh_comms_trio.backends.embedded.stores import open_sqlite
    from wazuh_comms_trio.backends.embedded.unowned import delete_unowned, unowned_documents
    from wazuh_comms_trio.cli.stores import embedded_folder, open_session

    session = open_session(arguments)
    if session.config.communications_api.events.document_id != "agent":
        complain("wazuh-comms", "with `events.document_id: global` a document's id doesn't say whose it is")
        return EXIT_FAILED
    folder = embedded_folder(session.config)
    with session.acting_as_owner(folder):
        async with open_sqlite(folder) as stores:
            if arguments.dry_run:
                found = await stores.database.read(unowned_documents)
            else:
                session.prepare_change()
                found = await delete_unowned(stores.database)
                if found:
                    session.changed(
                        "store prune", str(folder), documents_of_unknown_agents=found.total(), agents=sorted(found)
                    )
    verb = "would be deleted" if arguments.dry_run else "deleted"
    lines = [f"{agent_id}: {count} documents" for agent_id, count in sorted(found.items())]
    text = "\n".join([*lines, f"{verb}: {found.total()} documents of {len(found)} unknown agents"])
    session.output.document({"deleted": not arguments.dry_run, "documents_of_unknown_agents": dict(found)}, text)
    return 0


def _unowned(folder: Path) -> dict[str, int]:
    """Of a file that can be read; else ``verify`` says what is wrong with it."""
    import apsw

    from wazuh_comms_trio.backends.embedded.database.opening import looking_at
    from wazuh_comms_trio.backends.embedded.unowned import unowned_documents

    path = folder / "state.db"
    if not path.exists():
        return {}
    try:
        with looking_at(path) as connection:
            return dict(unowned_documents(connection))
    except (apsw.Error, UnicodeDecodeError):
        return {}


def check_token_keys(config: Config, repair: bool) -> Iterator[Finding]:
    from wazuh_comms_trio.backup.verify import Finding
    from wazuh_comms_trio.daemon.remembered_keys import FILE_NAME, KeyMemory, find_fault, node_folder

    folder = node_folder(config.communications_api)
    fault = find_fault(folder)
    if fault is not None:
        repaired = repair and KeyMemory(folder).repair() and find_fault(folder) is None
        remedy = (
            f"what can be read is kept, the damaged file is {FILE_NAME}.damaged; revoke again what had been revoked"
        )
        yield Finding(FILE_NAME, fault, remedy, repaired)


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
        for finding in chain(
            verify(session.config, repair=arguments.repair), check_token_keys(session.config, arguments.repair)
        ):
            found.append(finding)
            if finding.repaired:
                session.changed("store verify", finding.place, damage=finding.damage, remedy=finding.remedy)
        own_ids = session.config.communications_api.events.document_id == "agent"
        unowned = _unowned(folder) if own_ids else {}
    documents = [
        {"place": each.place, "damage": each.damage, "remedy": each.remedy or None, "repaired": each.repaired}
        for each in found
    ]
    lines = []
    for each in found:
        intent = "done" if each.repaired else "with --repair" if not arguments.repair else "not done"
        lines.append(f"{each.place}: {each.damage}" + (f" ({intent}: {each.remedy})" if each.remedy else ""))
    text = "\n".join(lines) or f"{folder}: nothing is damaged"
    report = {"path": str(Path(folder)), "damaged": documents, "documents_of_unknown_agents": unowned}
    session.output.document(report, text)
    if unowned:
        complain(
            "wazuh-comms",
            f"state.db: {sum(unowned.values())} documents are of {len(unowned)} agents that aren't enrolled and were "
            "removed by an earlier version: they stay until `store prune --unknown-agents`; --dry-run names them",
        )
    return EXIT_FAILED if any(not each.repaired for each in found) else 0
