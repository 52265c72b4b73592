"""Is the indexer as it has to be? One finding a line, with what to do where it isn't."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, Literal

import attrs
import msgspec
from attrs import frozen

from wazuh_comms_trio.backends.opensearch.admin.fields import MORE_FIELDS, about_fields
from wazuh_comms_trio.backends.opensearch.admin.init import matching_template, server_of
from wazuh_comms_trio.backends.opensearch.admin.mappings import agents_problems, commands_problems, settings_problems
from wazuh_comms_trio.backends.opensearch.admin.unreadable import find_unreadable
from wazuh_comms_trio.backends.opensearch.agents import documents as agents
from wazuh_comms_trio.backends.opensearch.client.bulk import partial, read_items, update_line
from wazuh_comms_trio.backends.opensearch.client.client import NDJSON, IndexerUnavailable, OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.client.credentials import Connect
from wazuh_comms_trio.backends.opensearch.client.error_details import describe
from wazuh_comms_trio.backends.opensearch.client.found import FindProblem
from wazuh_comms_trio.backends.opensearch.cluster_state import about_disks, look_at_indexer
from wazuh_comms_trio.backends.opensearch.commands import documents as commands
from wazuh_comms_trio.backends.opensearch.index_names import CANDIDATES, find_name
from wazuh_comms_trio.backends.opensearch.node_registry import INDEX as NODES_INDEX
from wazuh_comms_trio.backends.opensearch.node_registry import had_registry
from wazuh_comms_trio.backends.opensearch.templates import PRESENCE_INDEX, index_exists
from wazuh_comms_trio.backends.state_modules import STATE_INDICES
from wazuh_comms_trio.backends.unreadable import UnreadableLog
from wazuh_comms_trio.config.backend_models import Indexer
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.log_context import format_address
from wazuh_comms_trio.http.client.connection import HttpReply

#: Seconds by which clocks may differ.
_SKEW: Final = 2.0
#: Lines for documents of one index.
_MOST_UNREADABLE: Final = 20
_CORRECT: Final = "correct it; `wazuh-comms indexer show INDEX/ID` shows it, `wazuh-comms indexer remove` removes it"
_PRESENCE_FIELDS: Final = ("seen", "sent", "node")
_INIT: Final = "run `wazuh-comms indexer init`"
_RESTORE: Final = (
    "restore it from a snapshot, if there is one: `wazuh-comms indexer init` makes an empty registry, in which no agent"
    " exists, and agents that are told so end"
)


@frozen
class Finding:
    """``remedy`` is empty where nothing is to be done."""

    level: Literal["ok", "warning", "problem"]
    what: str
    text: str
    remedy: str = ""


async def check_indexer(
    settings: Indexer, *, wall_clock: Callable[[], float] = time.time, connect: Connect | None = None
) -> AsyncIterator[Finding]:
    """All findings, each when it is known. What can't be asked is a finding, too. Raises ``AccessError``."""
    reachable = []
    for host in settings.hosts:
        finding = await _check_host(attrs.evolve(settings, hosts=(host,)), connect)
        if finding.level == "ok":
            reachable.append(host)
        yield finding
    if settings.username is not None and not settings.ssl.use_ssl:
        yield Finding("warning", "encryption", "the password is sent unencrypted", "set indexer.ssl.use_ssl")
    if settings.ssl.use_ssl and not settings.ssl.verify_certificates:
        yield Finding("warning", "certificates", "are not verified", "set indexer.ssl.verify_certificates")
    if not reachable:
        return
    async with OpenSearchClient(attrs.evolve(settings, hosts=tuple(reachable)), connect=connect) as client:
        client.unreadable = UnreadableLog(silent=True)  # they are findings
        for what, check in _CHECKS.items():
            try:
                async for finding in check(client, settings, wall_clock):
                    yield finding
            except BackendUnavailable as exc:
                yield Finding("problem", what, str(exc), _remedy(_reply_of(exc)))


async def _check_host(settings: Indexer, connect: Connect | None) -> Finding:
    (host,) = settings.hosts
    what = f"connection {(address := format_address((host.host, host.port)))}"
    async with OpenSearchClient(settings, connect=connect) as client:
        try:
            reply = await client.request("GET", "/")
        except BackendUnavailable as exc:
            text = str(exc).removeprefix(f"{address}: ")
            return Finding("problem", what, text, _connection_remedy(text))
    if reply.status != 200:
        return Finding("problem", what, describe(reply), _remedy(reply))
    text, remedy = server_of(reply)
    return Finding("problem" if remedy else "ok", what, text, remedy)


def _connection_remedy(text: str) -> str:
    if "certificate is not yet valid" in text:
        return "is this machine's clock right? If it is, wait until the certificate is valid, or replace it"
    if "certificate has expired" in text:
        return "replace the certificate, or its CA's; or is this machine's clock wrong?"
    if "certificate is not accepted" in text:
        return "indexer.ssl.certificate_authorities must name the CA that signed it, and the host its name in it"
    if "certificate required" in text:
        return "it asks for a client certificate: set indexer.ssl.certificate and indexer.ssl.key"
    if "TLS" in text:
        return "check indexer.ssl: use_ssl, certificate and key"
    if "closed without an answer" in text or "isn't sound HTTP" in text:
        return "does it expect TLS, or a client certificate? Check indexer.ssl"
    return "is the indexer running there? Check indexer.hosts"


def _reply_of(exc: BackendUnavailable) -> HttpReply | None:
    return exc.reply if isinstance(exc, IndexerUnavailable) else None


def _is_forbidden(exc: BackendUnavailable) -> bool:
    reply = _reply_of(exc)
    return reply is not None and reply.status == 403


_GIVE_RIGHT: Final = "give the account the right to do this"


def _remedy(reply: HttpReply | None) -> str:
    if reply is not None and reply.status == 401:
        return "check indexer.username and indexer.password (or password_file), or the certificate of indexer.ssl"
    if reply is not None and reply.status == 403:
        return _GIVE_RIGHT
    if reply is not None and reply.status == 503 and b"not initialized" in reply.body:
        return "it has just started: wait; if it stays so, its security index has yet to be made"
    return "see the indexer's log"


class _Health(msgspec.Struct):
    status: str
    number_of_nodes: int


class _Node(msgspec.Struct):
    timestamp: float
    name: str = "a node"


class _Nodes(msgspec.Struct):
    nodes: dict[str, _Node] = {}


async def _health(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    health = await client.json("GET", "/_cluster/health", type=_Health)
    text = f"{health.status}, {health.number_of_nodes} nodes"
    if health.status == "red":
        yield Finding("problem", "cluster", text, "some shards have no node: see the indexer's log")
    else:
        yield Finding("ok", "cluster", text)


async def _clocks(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    before = now()
    wanted = {"filter_path": "nodes.*.timestamp,nodes.*.name"}
    stats = await client.json("GET", "/_nodes/stats/os", query=wanted, type=_Nodes)
    ours = (before + now()) / 2
    for node in stats.nodes.values():
        skew = node.timestamp / 1000 - ours
        what = f"clock of {node.name}"
        if abs(skew) > _SKEW:
            text = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
            yield Finding("problem", what, text, "synchronise both, by NTP for instance")
        else:
            yield Finding("ok", what, f"differs by {abs(skew):.1f} s")


async def _disks(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    state = await look_at_indexer(client, now)
    if state is None:
        text = "can't be looked at: full ones are noticed when they refuse writes"
        yield Finding("warning", "disks", text, "give the account the right cluster_monitor")
        return
    full = about_disks(state)
    for text in full.values():
        yield Finding("problem", "disks", text, "make room, or add disks or nodes")
    if not full:
        fullest = max((disk.used for disk in state.disks), default=0.0)
        yield Finding("ok", "disks", f"the fullest is used to {100 * fullest:.0f} %")


async def _agents(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    async for finding in _index(client, "agents", settings.names.agents, agents_problems):
        yield finding


async def _commands(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    async for finding in _index(client, "commands", settings.names.commands, commands_problems):
        yield finding


async def _index(
    client: OpenSearchClient,
    kind: Literal["agents", "commands"],
    configured: str | None,
    find_problems: Callable[[Mapping[str, Any]], list[str]],
) -> AsyncIterator[Finding]:
    what = f"{kind} index"
    name = await find_name(client, kind, configured)
    if name is None:
        missing = configured or " and ".join(CANDIDATES[kind])
        if kind == "agents" and await had_registry(client):
            yield Finding("problem", what, f"{missing}: missing, and there was one", _RESTORE)
        else:
            yield Finding("problem", what, f"{missing}: missing", _INIT)
        return
    if configured is None:
        others = [other for other in CANDIDATES[kind] if other != name and await _is_there(client, other)]
        for other in others:
            text = f"{name} is used, and {other} exists too"
            yield Finding("warning", what, text, f"set indexer.names.{kind} to the right one")
    problems = []
    try:
        blocks = await client.json("GET", path(name, "_settings"), query={"flat_settings": "true"})
        mappings = await client.json("GET", path(name, "_mapping"))
    except BackendUnavailable as exc:
        if not _is_forbidden(exc):
            raise
        yield Finding("warning", what, f"{name}: settings and mapping can't be looked at: {exc}", _GIVE_RIGHT)
    else:
        problems += _about_several(kind, name, blocks)
        remedy = "remove the block, once there is room on the disk"
        for text in (text for each in _objects(blocks) for text in settings_problems(_object(each, "settings"))):
            problems.append(Finding("problem", what, f"{name}: {text}", remedy))
        remedy = "index it anew with the mapping of the template"
        for text in (text for each in _objects(mappings) for text in find_problems(_object(each, "mappings"))):
            problems.append(Finding("problem", what, f"{name}: {text}", remedy))
    problems += [finding async for finding in _permissions(client, what, name)]
    if kind == "agents":
        problems += await _unreadable(client, what, name, agents.find_problem, ["agent"])
    else:
        problems += await _unreadable(client, what, name, commands.find_problem)
    for finding in problems:
        yield finding
    if all(finding.level != "problem" for finding in problems):
        yield Finding("ok", what, name)


def _about_several(kind: Literal["agents", "commands"], name: str, settings: object) -> list[Finding]:
    """A finding where the name is an alias of more than one index."""
    several = sorted(settings) if isinstance(settings, dict) and len(settings) > 1 else []
    if not several or kind == "commands":
        return []
    text = f"{name} stands for several indices ({', '.join(several)}): an agent is read by its id, in one"
    return [Finding("problem", f"{kind} index", text, "bring all agents into one index (_reindex), and name that")]


def _objects(answer: object) -> list[Any]:
    return list(answer.values()) if isinstance(answer, dict) else []


def _object(answer: object, name: str) -> Mapping[str, Any]:
    found = answer.get(name) if isinstance(answer, dict) else None
    return found if isinstance(found, dict) else {}


async def _unreadable(
    client: OpenSearchClient,
    what: str,
    name: str,
    judge: FindProblem = lambda source: None,
    fields: Sequence[str] | None = None,
) -> list[Finding]:
    """A line for each document that is passed over, up to a number."""
    found: list[Finding] = []
    more = 0
    async for document in find_unreadable(client, name, fields=fields, find_problem=judge):
        if len(found) < _MOST_UNREADABLE:
            found.append(Finding("problem", what, str(document.unreadable()), _CORRECT))
        else:
            more += 1
    if more:
        found.append(Finding("problem", what, f"{name}: {more} more can't be read", _CORRECT))
    return found


async def _permissions(client: OpenSearchClient, what: str, name: str) -> AsyncIterator[Finding]:
    """Tries reading, searching, refreshing and writing; what is written is a change of a document that doesn't
    exist."""
    reads = {
        "read": ("POST", path(name, "_mget"), b'{"ids":["wazuh-comms-check"]}'),
        "search": ("POST", path(name, "_search"), b'{"size":0}'),
    }
    for right, (method, target, body) in reads.items():
        reply = await client.request(method, target, body)
        if reply.status != 200:
            yield Finding("problem", what, f"{name}: no {right}: {describe(reply)}", _remedy(reply))
    reply = await client.request("POST", path(name, "_refresh"))
    if reply.status != 200:
        text = f"{name}: no refresh: commands are found later, by the index's own interval"
        yield Finding("warning", what, text, _remedy(reply))
    async for finding in _writes(client, what, [name]):
        yield finding


async def _writes(client: OpenSearchClient, what: str, names: Sequence[str]) -> AsyncIterator[Finding]:
    """Tries all writes in one call; the indices have to exist, since one that doesn't would be made."""
    lines = b"".join(update_line(name, "wazuh-comms-check") + partial({}) for name in names)
    reply = await client.request("POST", "/_bulk", lines, content_type=NDJSON)
    if reply.status != 200:
        yield Finding("problem", what, f"no write: {describe(reply)}", _remedy(reply))
        return
    for name, item in zip(names, read_items(reply, len(names)), strict=True):
        if item.error is not None and item.error.type != "document_missing_exception":
            denied = item.error.type == "security_exception"
            text = f"{name}: no write: {item.error.type}: {item.error.reason}"
            yield Finding("problem", what, text, _GIVE_RIGHT if denied else "see the indexer's log")


async def _nodes(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    if await _is_there(client, NODES_INDEX):
        for finding in await _unreadable(client, "nodes index", NODES_INDEX):
            yield finding


async def _presence(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    what = "presence index"
    present = await _is_there(client, PRESENCE_INDEX)
    if present is False:
        yield Finding("ok", what, f"{PRESENCE_INDEX}: made by the first daemon that runs")
        return
    problems = []
    if present is None:
        problems.append(f"{PRESENCE_INDEX}: no right to see it")
    else:
        problems = [each.text async for each in _permissions(client, what, PRESENCE_INDEX)]
        for finding in await _unreadable(client, what, PRESENCE_INDEX, fields=_PRESENCE_FIELDS):
            yield finding
    for text in problems:
        lost = "agents' status follows their log-ins alone, and `agents why` knows its own node alone"
        yield Finding("warning", what, f"{text}: {lost}", _GIVE_RIGHT)
    if not problems:
        yield Finding("ok", what, PRESENCE_INDEX)


async def _is_there(client: OpenSearchClient, name: str) -> bool | None:
    """Whether an index exists; None: we aren't allowed to know."""
    try:
        return await index_exists(client, name)
    except BackendUnavailable as exc:
        if not _is_forbidden(exc):
            raise
        return None


async def _states(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    what = "state indices"
    there = {name: await _is_there(client, name) for name in STATE_INDICES}
    unseen = [name for name, is_present in there.items() if is_present is None]
    problems = [Finding("problem", what, f"{name}: no right to see it", _GIVE_RIGHT) for name in unseen]
    present = [name for name, is_present in there.items() if is_present]
    if present:
        problems += [finding async for finding in _writes(client, what, present)]
        problems += [Finding("warning", what, text, MORE_FIELDS) for text in await about_fields(client, present)]
    for finding in problems:
        yield finding
    missing = [name for name, is_present in there.items() if is_present is False]
    if not missing:
        if not problems:
            yield Finding("ok", what, f"all {len(STATE_INDICES)}")
        return
    several = f"{len(missing)} of {len(STATE_INDICES)} are"
    try:
        template = await matching_template(client, missing[0])
    except BackendUnavailable as exc:
        if not _is_forbidden(exc):
            raise
        text = f"{several} missing, and whether there is a template for them we aren't allowed to know"
        yield Finding("warning", what, text, _INIT)
        return
    if template is not None:
        yield Finding("ok", what, f"{several} made with their first event ({template})")
    else:
        yield Finding("warning", what, f"{several} missing, and there is no template for them", _INIT)


#: Each with what a line that says why it failed begins with.
_CHECKS: Final = {
    "cluster": _health,
    "clocks": _clocks,
    "disks": _disks,
    "agents index": _agents,
    "commands index": _commands,
    "state indices": _states,
    "nodes index": _nodes,
    "presence index": _presence,
}
