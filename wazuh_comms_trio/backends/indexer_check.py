"""Is the indexer as it has to be? One finding a line, with what to do where it isn't."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Literal

import attrs
from attrs import frozen

from wazuh_comms_trio.backends.http_connection import HttpReply
from wazuh_comms_trio.backends.indexer_init import matching_template
from wazuh_comms_trio.backends.indexer_mappings import agents_problems, commands_problems, settings_problems
from wazuh_comms_trio.backends.indexer_templates import STATE_INDICES, index_exists
from wazuh_comms_trio.backends.opensearch_bulk import partial, read_items, update_line
from wazuh_comms_trio.backends.opensearch_client import (
    NDJSON,
    Connect,
    IndexerUnavailable,
    OpenSearchClient,
    decode,
    describe,
    path,
)
from wazuh_comms_trio.backends.opensearch_names import CANDIDATES, find_name
from wazuh_comms_trio.config.models import Indexer
from wazuh_comms_trio.errors import BackendUnavailable

#: Seconds by which clocks may differ.
_SKEW: Final = 2.0
_INIT: Final = "run `wazuh-comms indexer init`"


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
        for check in (_health, _clocks, _agents, _commands, _states):
            try:
                async for finding in check(client, settings, wall_clock):
                    yield finding
            except BackendUnavailable as exc:
                reply = exc.reply if isinstance(exc, IndexerUnavailable) else None
                yield Finding("problem", check.__name__.removeprefix("_"), str(exc), _remedy(reply))


async def _check_host(settings: Indexer, connect: Connect | None) -> Finding:
    (host,) = settings.hosts
    what = f"connection {host.host}:{host.port}"
    async with OpenSearchClient(settings, connect=connect) as client:
        try:
            reply = await client.request("GET", "/")
        except BackendUnavailable as exc:
            return Finding("problem", what, str(exc), _connection_remedy(str(exc)))
    if reply.status != 200:
        return Finding("problem", what, describe(reply), _remedy(reply))
    try:
        version: Mapping[str, Any] = decode(reply)["version"]
        number, distribution = str(version["number"]), version.get("distribution")
    except (BackendUnavailable, KeyError, TypeError):
        return Finding("problem", what, "this is no OpenSearch", "correct indexer.hosts")
    text = f"{distribution or 'unknown distribution'} {number}"
    if distribution != "opensearch" or not number.startswith(("2.", "3.")):
        return Finding("problem", what, f"{text} is not supported", "use OpenSearch 2.x or 3.x")
    return Finding("ok", what, text)


def _connection_remedy(text: str) -> str:
    if "certificate is not accepted" in text:
        return "indexer.ssl.certificate_authorities must name the CA that signed it, and the host its name in it"
    if "TLS" in text:
        return "check indexer.ssl: use_ssl, certificate and key"
    if "closed without an answer" in text or "isn't sound HTTP" in text:
        return "does it expect TLS, or a client certificate? Check indexer.ssl"
    return "is the indexer running there? Check indexer.hosts"


def _remedy(reply: HttpReply | None) -> str:
    if reply is not None and reply.status == 401:
        return "check indexer.username and indexer.password (or password_file)"
    if reply is not None and reply.status == 403:
        return "give the account the right to do this"
    return "see the indexer's log"


async def _health(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    health = await client.json("GET", "/_cluster/health")
    text = f"{health['status']}, {health['number_of_nodes']} nodes"
    if health["status"] == "red":
        yield Finding("problem", "cluster", text, "some shards have no node: see the indexer's log")
    else:
        yield Finding("ok", "cluster", text)


async def _clocks(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    before = now()
    stats = await client.json("GET", "/_nodes/stats/os", query={"filter_path": "nodes.*.timestamp,nodes.*.name"})
    ours = (before + now()) / 2
    for node in stats.get("nodes", {}).values():
        skew = node["timestamp"] / 1000 - ours
        what = f"clock of {node.get('name', 'a node')}"
        if abs(skew) > _SKEW:
            text = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
            yield Finding("problem", what, text, "synchronise both, by NTP for instance")
        else:
            yield Finding("ok", what, f"differs by {abs(skew):.1f} s")


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
        yield Finding("problem", what, f"{missing}: missing", _INIT)
        return
    if configured is None:
        others = [other for other in CANDIDATES[kind] if other != name and await index_exists(client, other)]
        for other in others:
            text = f"{name} is used, and {other} exists too"
            yield Finding("warning", what, text, f"set indexer.names.{kind} to the right one")
    settings = await client.json("GET", path(name, "_settings"), query={"flat_settings": "true"})
    mappings = await client.json("GET", path(name, "_mapping"))
    problems = [text for each in settings.values() for text in settings_problems(each.get("settings", {}))]
    for text in problems:
        yield Finding("problem", what, f"{name}: {text}", "remove the block, once there is room on the disk")
    wrong = [text for each in mappings.values() for text in find_problems(each.get("mappings", {}))]
    for text in wrong:
        yield Finding("problem", what, f"{name}: {text}", "index it anew with the mapping of the template")
    async for finding in _permissions(client, what, name):
        yield finding
    if not problems and not wrong:
        yield Finding("ok", what, name)


async def _permissions(client: OpenSearchClient, what: str, name: str) -> AsyncIterator[Finding]:
    """Reading, searching, refreshing, writing; what is written is a change of a document that doesn't exist."""
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
    lines = update_line(name, "wazuh-comms-check") + partial({})
    reply = await client.request("POST", "/_bulk", lines, content_type=NDJSON)
    if reply.status != 200:
        yield Finding("problem", what, f"{name}: no write: {describe(reply)}", _remedy(reply))
        return
    (item,) = read_items(reply, 1)
    if item.error is not None and item.error.type != "document_missing_exception":
        remedy = "give the account the right to do this" if item.status in (401, 403) else "see the indexer's log"
        yield Finding("problem", what, f"{name}: no write: {item.error.type}: {item.error.reason}", remedy)


async def _states(client: OpenSearchClient, settings: Indexer, now: Callable[[], float]) -> AsyncIterator[Finding]:
    missing = [name for name in STATE_INDICES if not await index_exists(client, name)]
    if not missing:
        yield Finding("ok", "state indices", f"all {len(STATE_INDICES)}")
    elif template := await matching_template(client, missing[0]):
        text = f"{len(missing)} of {len(STATE_INDICES)} are made with their first event ({template})"
        yield Finding("ok", "state indices", text)
    else:
        text = f"{len(missing)} of {len(STATE_INDICES)} are missing, and there is no template for them"
        yield Finding("warning", "state indices", text, _INIT)
