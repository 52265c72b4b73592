"""``wazuh-comms quarantine``: what could never be taken."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Any, Final

from wazuh_comms_trio.cli import arguments as types
from wazuh_comms_trio.cli.agents.names import AgentLabels, agent_option, open_labels
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_FAILED, EXIT_MISUSE, Failure, complain

if TYPE_CHECKING:
    from wazuh_comms_trio.cli.replay import Replayed
    from wazuh_comms_trio.cli.stores import QuarantineSession
    from wazuh_comms_trio.quarantine.interface import Entry


#: Of the list.
_HEADS: Final = ("ID", "LAST", "AGENT", "KIND", "BYTES", "COUNT", "REASON")
_SPARE: Final = ("BYTES", "COUNT", "KIND", "LAST")


def add_parser(parent: Group) -> None:
    quarantine = parent.group("quarantine", help="events that could never be taken: list, show, replay, drop")
    listing = quarantine.command("list", _list, help="the entries, the oldest first")
    listing.add_argument("--agent", metavar="UUID|NAME", type=types.agent_reference)
    show = quarantine.command("show", _show, help="one entry with its bytes")
    show.add_argument("id", metavar="ID", type=types.count)
    show.add_argument("--raw", action="store_true", help="print the payload's bytes and nothing else")
    replay = quarantine.command(
        "replay", _replay, help="send entries on once more; those that are taken now are dropped"
    )
    replay.add_argument(
        "--force",
        action="store_true",
        help="also events of which it isn't known whether a later one has changed their document",
    )
    drop = quarantine.command("drop", _drop, help="delete entries")
    for parser in (replay, drop):
        parser.add_argument("ids", metavar="ID", type=types.count, nargs="*")
        parser.add_argument("--agent", metavar="UUID|NAME", type=types.agent_reference, help="all of this agent")
        parser.add_argument("--all", action="store_true", help="every entry")


def entry_document(entry: Entry) -> dict[str, Any]:
    """An entry as ``--json`` prints it, without its bytes."""
    from wazuh_comms_trio.cli.output import timestamp

    return {
        "id": entry.id,
        "agent_id": entry.agent_id,
        "kind": entry.kind,
        "reason": entry.reason,
        "bytes": entry.payload_bytes,
        "counted_bytes": entry.size,
        "count": entry.count,
        "first_at": timestamp(entry.first_at),
        "last_at": timestamp(entry.last_at),
        "replayed_at": timestamp(entry.replayed_at),
        "replay_error": entry.replay_error,
        "document": entry.document or None,
        "overtaken_at": timestamp(entry.overtaken_at),
    }


async def _pages(session: QuarantineSession, agent_id: str | None) -> AsyncGenerator[Sequence[Entry], None]:
    after = 0
    while page := await session.quarantine.list(agent_id=agent_id, after=after):
        yield page
        after = page[-1].id


async def _entries(session: QuarantineSession, agent_id: str | None) -> AsyncIterator[Entry]:
    async with aclosing(_pages(session, agent_id)) as pages:
        async for page in pages:
            for entry in page:
                yield entry


def _row(entry: Entry, agent: str) -> tuple[object, ...]:
    """``agent``: its label."""
    from wazuh_comms_trio.cli.output import timestamp

    reason = entry.reason if entry.overtaken_at is None else f"(overtaken) {entry.reason}"
    last = timestamp(entry.last_at)
    return entry.id, last, agent, entry.kind, entry.payload_bytes, entry.count, reason


async def _list(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.stores import open_quarantine_session
    from wazuh_comms_trio.quarantine.opening import quarantine_mark

    async with open_quarantine_session(arguments) as session:
        agent_id = await agent_option(arguments)
        labelled = nullcontext(AgentLabels(None)) if arguments.json else open_labels(arguments)
        async with labelled as labels, aclosing(_pages(session, agent_id)) as pages:
            with session.output.listing(_HEADS, _SPARE) as listing:
                async for page in pages:
                    named = await labels.of(entry.agent_id for entry in page)
                    listing.page(map(entry_document, page), [_row(entry, named[entry.agent_id]) for entry in page])
        usage = await session.quarantine.usage()
        entries_held = "1 entry" if usage.entries == 1 else f"{usage.entries} entries"
        session.output.note(f"{entries_held}, {usage.bytes} of {usage.max_bytes} bytes")
        loss = quarantine_mark(session.config).loss()
        if loss is not None:
            complain("wazuh-comms", f"quarantine.db: {loss}; `store verify --repair` accepts that")
    return EXIT_FAILED if loss is not None else 0


async def _show(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.output import lines, pairs
    from wazuh_comms_trio.cli.stores import open_quarantine_session

    async with open_quarantine_session(arguments) as session:
        found = await session.quarantine.get(arguments.id)
        if found is None:
            raise Failure(f"there is no entry {arguments.id} in the quarantine")
        entry, rejected = found
        if arguments.raw:
            sys.stdout.buffer.write(rejected.payload)
            sys.stdout.buffer.flush()
            return 0
        document = entry_document(entry)
        metadata, payload = (part.decode("utf-8", "backslashreplace") for part in (rejected.metadata, rejected.payload))
        text = f"{pairs(document)}\n\n{lines([metadata])}\n{payload}".rstrip("\n")
        session.output.document({**document, "metadata": metadata, "payload": payload}, text)
    return 0


async def _chosen(arguments: Namespace, session: QuarantineSession) -> tuple[list[Entry], set[int]]:
    """The entries named, and the ids of those that aren't listed. Raises ``Failure`` when none was named."""
    if sum((bool(arguments.ids), arguments.agent is not None, arguments.all)) != 1:
        raise Failure("name entries by their ids, by --agent, or with --all", EXIT_MISUSE)
    if not arguments.ids:
        return [entry async for entry in _entries(session, await agent_option(arguments))], set()
    wanted = set(arguments.ids)
    found = [entry async for entry in _entries(session, None) if entry.id in wanted]
    return found, wanted - {entry.id for entry in found}


def _refuse(missing: Collection[int]) -> None:
    """Raises ``Failure`` when there are any such ids."""
    if missing:
        raise Failure(f"not in the quarantine: {', '.join(map(str, sorted(missing)))}; nothing was done")


async def _unreadable(session: QuarantineSession, entry_ids: Collection[int]) -> set[int]:
    """The entries that are there, and can't be read."""
    from wazuh_comms_trio.errors import DocumentUnreadable

    found = set()
    for entry_id in entry_ids:
        try:
            await session.quarantine.get(entry_id)
        except DocumentUnreadable:
            found.add(entry_id)
    return found


async def _drop(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.stores import open_quarantine_session

    async with open_quarantine_session(arguments) as session:
        entries, unlisted = await _chosen(arguments, session)
        unreadable = await _unreadable(session, unlisted)
        _refuse(unlisted - unreadable)
        session.prepare_change()
        ids = sorted({entry.id for entry in entries} | unreadable)
        dropped = await session.quarantine.drop(ids)
        if ids:
            agents = sorted({entry.agent_id for entry in entries})
            session.changed("quarantine drop", _joined(ids), agents=agents)
        session.output.document(
            {"dropped": dropped}, f"dropped {dropped} entries" if dropped != 1 else "dropped 1 entry"
        )
    return 0


async def _replay(arguments: Namespace) -> int:
    """Replays entries; exit status 1 when some entry still can't be taken."""
    from wazuh_comms_trio.cli.output import lines
    from wazuh_comms_trio.cli.replay import open_replay
    from wazuh_comms_trio.cli.stores import open_quarantine_session, open_stores

    async with open_quarantine_session(arguments) as session, open_stores(arguments) as stores:
        entries, unlisted = await _chosen(arguments, session)
        _refuse(unlisted)
        session.prepare_change()
        replayed: list[Replayed] = []
        async with open_replay(stores.backends, session.quarantine, session.config, force=arguments.force) as replay:
            try:
                for entry in entries:
                    replayed.append(await replay.replay(entry))
            finally:
                taken = [one.entry for one in replayed if one.error is None]
                if taken:
                    ids = _joined(entry.id for entry in taken)
                    session.changed("quarantine replay", ids, agents=sorted({one.agent_id for one in taken}))
        documents = [
            {"id": one.entry.id, "error": one.error, "results": one.results, "overtaken": one.overtaken}
            for one in replayed
        ]
        session.output.document(documents, lines(f"{one.entry.id}  {_outcome(one)}" for one in replayed))
        if not entries:
            session.output.note("nothing to replay")
    return EXIT_FAILED if any(one.error is not None for one in replayed) else 0


def _outcome(one: Replayed) -> str:
    if one.overtaken:
        return "overtaken: a later event has changed the document since; it isn't written, `drop` deletes it"
    if one.error is not None:
        return f"still refused: {one.error}"
    results = ", ".join(f"{result['status']} {result['result']}" for result in one.results)
    return f"taken: {results}" if results else "taken"


def _joined(ids: Iterable[int]) -> str:
    return ",".join(map(str, ids))
