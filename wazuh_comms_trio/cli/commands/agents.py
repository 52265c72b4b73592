"""``wazuh-comms agents``: the agents that may talk to the daemon."""

from __future__ import annotations

import secrets
import sys
import time
from argparse import Namespace
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from wazuh_comms_trio.cli import arguments as types
from wazuh_comms_trio.cli.agents.listing import Listed, add_filters, chosen, stored_order, with_status
from wazuh_comms_trio.cli.agents.names import agent_id_of, several
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.foundation.journal import printable

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.interfaces import Agent
    from wazuh_comms_trio.backends.presence import LastSeen, NodeNews
    from wazuh_comms_trio.cli.stores import Stores


#: Of the list; an agent is known by its name as well.
_HEADS: Final = ("UUID", "NAME", "STATUS", "GROUPS", "LAST SEEN")
_SPARE: Final = ("GROUPS", "UUID", "LAST SEEN", "STATUS")
#: Of one agent, in ``why``: its last commands, and how far its events in quarantine are counted.
COMMANDS_SHOWN: Final = 5
ENTRIES_COUNTED: Final = 1000
#: Seconds.
DAEMON_TIMEOUT: Final = 5.0


def add_parser(parent: Group) -> None:
    agents = parent.group("agents", help="agents: add, list, show, why, remove, rekey")
    add = agents.command("add", _add, help="enrol an agent; prints its uuid and key")
    add.add_argument("name", metavar="NAME", type=types.agent_name, help="at most 128 characters")
    add.add_argument("--uuid", metavar="U", type=types.agent_uuid, help="default: a new one (version 7)")
    add.add_argument("--key", metavar="K", type=types.agent_key, help="32 letters and digits; default: a new one")
    add.add_argument("--group", metavar="G", type=types.own_group, action="append", default=[], help="may be repeated")
    add.add_argument("--duplicate", action="store_true", help="even if another agent has this name")
    add_filters(agents.command("list", _list, help="all agents, or some of them"))
    show = agents.command("show", _show, help="one agent")
    why = agents.command(
        "why",
        _why,
        help="why an agent is silent: what was heard of it and refused it last, and what to do",
        description="What this node's daemon heard of an agent and what it refused it, last, on each channel; its"
        " commands and its events in quarantine; in plain sentences with what to do. With an indexer, what other nodes"
        " heard, too, at most a minute old. On embedded backends what was before the daemon's start isn't known.",
    )
    remove = agents.command("remove", _remove, help="remove agents: tokens end at once, pending commands fail")
    rekey = agents.command("rekey", _rekey, help="give an agent a new key; prints it")
    for parser in (show, why, rekey):
        parser.add_argument("agent", metavar="UUID|NAME", type=types.agent_reference)
    remove.add_argument("agents", metavar="UUID|NAME", type=types.agent_reference, nargs="+")
    rekey.add_argument("--key", metavar="K", type=types.agent_key, help="32 letters and digits; default: a new one")


def new_uuid(*, now: Callable[[], float] = time.time) -> str:
    """Version 7: milliseconds since the epoch, then chance."""
    number = int(now() * 1000) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(UUID(int=number))


def agent_document(one: Listed) -> dict[str, Any]:
    """An agent as ``--json`` prints it; the key's hash isn't part of it."""
    from wazuh_comms_trio.cli.output import timestamp

    agent = one.agent
    return {
        "uuid": agent.id,
        "name": agent.name,
        "groups": list(agent.groups),
        "status": one.status,
        "last_seen": timestamp(one.moment),
        "node": one.node or None,
        "last_login": timestamp(agent.last_login),
        "type": agent.type,
        "version": agent.version,
        "host": dict(agent.host),
    }


async def _add(arguments: Namespace) -> int:
    from wazuh_comms_trio.backends.interfaces import Agent
    from wazuh_comms_trio.cli.stores import open_stores
    from wazuh_comms_trio.errors import AgentExists
    from wazuh_comms_trio.services.authentication.secret_hashes import hash_key, new_key

    key = arguments.key or new_key()
    groups = tuple(dict.fromkeys(arguments.group))
    agent = Agent(arguments.uuid or new_uuid(), arguments.name, hash_key(key), groups=groups)
    async with open_stores(arguments) as stores:
        if not arguments.duplicate:
            same = list(await stores.backends.agents.named(agent.name))
            if same and same != [agent.id]:
                raise Failure(f"the name {agent.name} is in use by {several(same)}; with --duplicate it is given again")
        stores.prepare_change()
        try:
            await stores.backends.agents.add(agent)
        except AgentExists:
            raise Failure(f"there is an agent {agent.id} already") from None
        stores.changed("agents add", agent.id, name=agent.name, groups=list(groups))
        _print_key({"uuid": agent.id, "name": agent.name, "key": key, "groups": list(groups)}, stores.output)
    return 0


async def _list(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.stores import open_stores

    async with open_stores(arguments) as stores:
        last_seen, now = _LastSeen(stores), time.time()
        after, known = stores.config.disconnected_after, 0
        order, reverse = stored_order(arguments)

        async def pages() -> AsyncGenerator[Sequence[Listed], None]:
            nonlocal known
            async with aclosing(stores.backends.agents.pages(order, reverse=reverse)) as read:
                async for page in read:
                    known += len(page)
                    seen = await last_seen.of(page)
                    yield [with_status(agent, seen.get(agent.id), now, after) for agent in page]

        with stores.output.listing(_HEADS, _SPARE) as listing:
            async with aclosing(pages()) as every, aclosing(chosen(every, arguments, now)) as agents:
                async for page in agents:
                    listing.page(map(agent_document, page), [_row(one) for one in page])
        if known and not listing.rows:
            stores.output.note(f"none of {known} agents matches")
        elif not listing.rows:
            is_local = stores.config.communications_api.backend == "embedded"
            check = "" if is_local else "; where there should be some, see `wazuh-comms indexer check` first"
            stores.output.note(f"no agents; `wazuh-comms agents add NAME` enrols one{check}")
    return 0


def _row(one: Listed) -> tuple[object, ...]:
    from wazuh_comms_trio.cli.output import timestamp

    agent = one.agent
    return agent.id, agent.name, one.status, ",".join(agent.groups), timestamp(one.moment)


class _LastSeen:
    """When agents were heard last. Where that can't be read log-ins are all that is known, which is said once."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._told = False

    async def of(self, agents: Sequence[Agent]) -> Mapping[str, LastSeen]:
        from wazuh_comms_trio.errors import BackendUnavailable

        try:
            return {} if self._told else await self._stores.backends.presence.last_seen_of([one.id for one in agents])
        except BackendUnavailable as exc:
            text = "when agents were heard last can't be read, so their log-ins decide"
            self._stores.output.note(f"{text}: {exc.message}")
            self._told = True
            return {}


async def _show(arguments: Namespace) -> int:
    import json

    from wazuh_comms_trio.cli.documents import unreadable_document
    from wazuh_comms_trio.cli.output import pairs
    from wazuh_comms_trio.cli.stores import open_stores
    from wazuh_comms_trio.errors import DocumentUnreadable

    async with open_stores(arguments) as stores:
        agent_id = await agent_id_of(stores.backends.agents, arguments.agent)
        try:
            agent = await stores.backends.agents.get(agent_id)
        except DocumentUnreadable as exc:
            stores.output.document(*unreadable_document("uuid", agent_id, exc))
            return 0
        if agent is None:
            raise _unknown(agent_id)
        seen = await _LastSeen(stores).of([agent])
        document = agent_document(with_status(agent, seen.get(agent_id), time.time(), stores.config.disconnected_after))
        host = json.dumps(document["host"], ensure_ascii=False) if agent.host else None
        shown = {**document, "groups": ", ".join(agent.groups) or None, "host": host}
        stores.output.document(document, pairs(shown))
    return 0


async def _why(arguments: Namespace) -> int:
    from wazuh_comms_trio.backends.presence import is_believed
    from wazuh_comms_trio.cli.agents.nodes import all_news, own_node_id
    from wazuh_comms_trio.cli.agents.why import Facts, explain, facts_document
    from wazuh_comms_trio.cli.command_socket import ask_daemon
    from wazuh_comms_trio.cli.output import lines
    from wazuh_comms_trio.cli.stores import open_quarantine_session, open_stores
    from wazuh_comms_trio.config.group_files import without_file
    from wazuh_comms_trio.errors import DocumentUnreadable

    async with open_stores(arguments) as stores:
        agent_id = await agent_id_of(stores.backends.agents, arguments.agent)
        unreadable, agent = None, None
        try:
            agent = await stores.backends.agents.get(agent_id)
        except DocumentUnreadable as exc:
            unreadable = str(exc)
        commands = await stores.backends.commands.list(agent_id=agent_id, limit=COMMANDS_SHOWN)
        stored, unasked = await _stored_news(stores, agent_id)
        files = stores.config.communications_api.files.path
        lacking = [] if agent is None else without_file(files, agent.groups)  # as the service's user sees it
    async with open_quarantine_session(arguments) as session:
        entries = await session.quarantine.list(agent_id=agent_id, limit=ENTRIES_COUNTED)
        shared = session.config.communications_api.backend == "wazuh"
    own, silent = None, None
    try:
        own = ask_daemon(arguments, "GET", f"/api/v1/agent?uuid={agent_id}", DAEMON_TIMEOUT)
    except Failure as failure:
        silent = str(failure)
    seen, nodes = all_news(own, stored, own_node_id(session.config) if shared else "")
    now = time.time()
    last = max((news.seen for news in stored if news.seen is not None and is_believed(news.seen, now)), default=None)
    facts = Facts(
        agent_id,
        agent,
        seen,
        commands,
        len(entries),
        now,
        silent,
        unreadable,
        shared,
        unasked if shared else None,
        nodes,
        last,
        lacking,
        str(files),
    )
    session.output.document(facts_document(facts), lines(explain(facts)))
    return 0


async def _stored_news(stores: Stores, agent_id: str) -> tuple[Sequence[NodeNews], str | None]:
    """What nodes have stored of an agent, or why that can't be read."""
    from wazuh_comms_trio.errors import BackendUnavailable

    try:
        return await stores.backends.presence.about(agent_id), None
    except BackendUnavailable as exc:
        return (), exc.message


async def _remove(arguments: Namespace) -> int:
    """Removes all of them, or none where one isn't known; what fails on the way says which are removed. Of one the
    document is an object, of several a list."""
    from wazuh_comms_trio.cli.output import lines
    from wazuh_comms_trio.cli.stores import open_stores

    async with open_stores(arguments) as stores:
        found = [await agent_id_of(stores.backends.agents, word) for word in arguments.agents]
        ids = list(dict.fromkeys(found))
        names = {agent_id: await _name_of(stores, agent_id) for agent_id in ids}
        stores.prepare_change()
        said: list[str] = []
        try:
            for agent_id, name in names.items():
                if not await stores.backends.agents.remove(agent_id):
                    raise _unknown(agent_id)
                said.append(f"removed {agent_id} ({name or 'name unknown'})")
                stores.changed("agents remove", agent_id, name=name)
        except BaseException:
            if len(names) > 1:
                print(f"{len(said)} of {len(names)} agents were removed", file=sys.stderr)
                print(*(f"{printable(line)}\n" for line in said), sep="", end="", file=sys.stderr)
            raise
        documents = [{"uuid": agent_id, "removed": True} for agent_id in names]
        stores.output.document(documents[0] if len(arguments.agents) == 1 else documents, lines(said))
    return 0


async def _name_of(stores: Stores, agent_id: str) -> str | None:
    """None for an agent that can't be read, which the log says. Raises ``Failure`` for one that there isn't."""
    from wazuh_comms_trio.errors import DocumentUnreadable

    try:
        agent = await stores.backends.agents.get(agent_id)
    except DocumentUnreadable:
        return None
    if agent is None:
        raise _unknown(agent_id)
    return agent.name


async def _rekey(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.stores import open_stores
    from wazuh_comms_trio.services.authentication.secret_hashes import hash_key, new_key

    key = arguments.key or new_key()
    async with open_stores(arguments) as stores:
        agent_id = await agent_id_of(stores.backends.agents, arguments.agent)
        agent = await stores.backends.agents.get(agent_id)
        stores.prepare_change()
        if agent is None or not await stores.backends.agents.rekey(agent.id, hash_key(key)):
            raise _unknown(agent_id)
        stores.changed("agents rekey", agent.id, name=agent.name)
        _print_key({"uuid": agent.id, "name": agent.name, "key": key}, stores.output)
    return 0


def _print_key(document: dict[str, Any], output: Any) -> None:
    from wazuh_comms_trio.cli.output import pairs

    shown = {name: document[name] for name in ("uuid", "name", "key")}
    output.document(document, pairs(shown))
    output.note("The key is shown this once: only its hash is kept.")


def _unknown(uuid: str) -> Failure:
    return Failure(f"there is no agent {uuid}")
