"""What an indexer needs before agents come: templates and indices, made where they are missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec
from attrs import frozen

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, decode, path
from wazuh_comms_trio.backends.opensearch.index_names import Kind as NamedKind
from wazuh_comms_trio.backends.opensearch.index_names import find_name, name_to_make
from wazuh_comms_trio.backends.opensearch.templates import (
    PRESENCE_INDEX,
    Kind,
    create_index,
    index_exists,
    templates,
)
from wazuh_comms_trio.backends.state_modules import STATE_INDICES, STATE_TEMPLATES
from wazuh_comms_trio.config.backend_models import IndexerNames
from wazuh_comms_trio.http.client.connection import HttpReply


@frozen
class Step:
    """One step of ``indexer init``: what was looked for, and what was done. ``made``: it was missing; else ``found``
    says what was there."""

    what: Literal["template", "index"]
    name: str
    made: bool
    found: str = ""


async def init_indexer(
    client: OpenSearchClient, settings: IndexerNames, *, note: Callable[[Step], None] = lambda step: None
) -> list[Step]:
    """Makes what is missing; changes nothing that exists, and may be repeated, by several at once too. ``note`` is told
    of each step when it is done, also when a later one fails. Raises ``BackendUnavailable``, also where it is no
    OpenSearch that answers."""
    reply = await client.request("GET", "/")
    if reply.status == 200 and (found := server_of(reply))[1]:
        raise IndexerUnavailable(found[0], reply=reply)
    agents = await _choose(client, "agents", settings.agents)
    commands = await _choose(client, "commands", settings.commands)
    indices: list[tuple[str, Kind]] = [(agents, "agents"), (commands, "commands"), (PRESENCE_INDEX, "presence")]
    indices += [(name, "states") for name in STATE_INDICES]
    steps = []
    for name, body in templates(agents, commands).items():
        steps.append(await _make_template(client, name, body))
        note(steps[-1])
    for name, kind in indices:
        steps.append(await _make_index(client, name, kind))
        note(steps[-1])
    return steps


def server_of(reply: HttpReply) -> tuple[str, str]:
    """Which server this answer to ``GET /`` comes from, and what is to be done if it can't be used: empty for a known
    OpenSearch."""
    try:
        version: Mapping[str, Any] = decode(reply)["version"]
        number, distribution = str(version["number"]), version.get("distribution")
    except (IndexerUnavailable, KeyError, TypeError, AttributeError):
        return "this is no OpenSearch", "correct indexer.hosts"
    text = f"{distribution or 'unknown distribution'} {number}"
    if distribution != "opensearch" or not number.startswith(("2.", "3.")):
        return f"{text} is not supported", "use OpenSearch 2.x or 3.x"
    return text, ""


async def _choose(client: OpenSearchClient, kind: NamedKind, configured: str | None) -> str:
    return await find_name(client, kind, configured) or await name_to_make(client, kind, configured)


async def _make_index(client: OpenSearchClient, name: str, kind: Kind) -> Step:
    if await index_exists(client, name):
        return Step("index", name, False, name)
    return Step("index", name, await create_index(client, name, kind), name)


async def _make_template(client: OpenSearchClient, name: str, body: Mapping[str, Any]) -> Step:
    """Makes a template; templates of others that are for the same names stay the only ones."""
    sample = str(body["index_patterns"][0]).replace("*", "fim")
    present = name if await _exists(client, name) else await matching_template(client, sample, besides=STATE_TEMPLATES)
    if present is not None:
        return Step("template", name, False, present)
    encoded = msgspec.json.encode(body)
    reply = await client.request("PUT", path("_index_template", name), encoded, query={"create": "true"})
    if reply.status == 400 and await _exists(client, name):  # another was faster
        return Step("template", name, False, name)
    decode(reply)
    return Step("template", name, True)


async def matching_template(client: OpenSearchClient, index: str, *, besides: Collection[str] = ()) -> str | None:
    """The name of a template, composable or legacy, for an index of this name, ``besides`` those. Raises
    ``BackendUnavailable``."""
    composable = await client.json("GET", "/_index_template")
    for template in composable.get("index_templates", ()):
        if template["name"] not in besides and _matches(
            index, template.get("index_template", {}).get("index_patterns", ())
        ):
            return str(template["name"])
    legacy = await client.json("GET", "/_template")
    for name, template in legacy.items():
        if _matches(index, template.get("index_patterns", ())):
            return str(name)
    return None


def _matches(index: str, patterns: Iterable[str] | str) -> bool:
    """A pattern for everything is a site's default, and says nothing of this index."""
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatchcase(index, pattern) for pattern in listed if pattern.strip("*."))


async def _exists(client: OpenSearchClient, name: str) -> bool:
    reply = await client.request("HEAD", path("_index_template", name))
    if reply.status not in (200, 404):
        raise IndexerUnavailable(f"the indexer answered {reply.status} to a look at the template {name}", reply=reply)
    return reply.status == 200
