"""wazuh-db over HTTP (``wdb-http``), since 4.13: groups, counts and states of agents.

Ids may be given as text or numbers. The routes changed in 5.0.0; each function takes the one that the release has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.transport.http.call import (
    HTTPCall,
    HTTPRequest,
    agent_header,
    agent_number,
    as_names,
    as_numbers,
    as_object,
    as_objects,
    get,
    nothing,
    numbers,
    post,
)
from wazuh_comms_trio.transport.releases.release import Release, only_in
from wazuh_comms_trio.wire.text_rules import check_group

SERVICE: Final = "wdb-http"

_SYNC_KEYS: Final = frozenset({"syncreq", "syncreq_keepalive", "syncreq_status"})


@dataclass(frozen=True)
class AgentIDGroups:
    """An agent, its id with at least three digits, and the names of its groups."""

    id: str
    groups: list[str]


@dataclass(frozen=True)
class AgentsSummary:
    """Numbers of agents by connection status, by operating system, by group. What has none is left out."""

    status: dict[str, int] = field(default_factory=dict)
    os: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, dict[str, int]]:
        """As the server answered."""
        return {"agents_by_status": self.status, "agents_by_os": self.os, "agents_by_groups": self.groups}


def _in_all(release: Release) -> None:
    only_in(release, "C", "G", "wazuh-db over HTTP")


def db_agent_ids() -> HTTPCall[list[int]]:
    """The numbers of all agents, without the server's own (0). Until 5.0.0-beta4."""

    def prepare(release: Release) -> HTTPRequest:
        only_in(release, "C", "F", "the list of agents' ids (db_all_agents has them in 5.0.0)")
        return get("/v1/agents/ids")

    return HTTPCall("db_agent_ids", SERVICE, prepare, as_numbers)


def db_agent_groups(agent_id: int | str) -> HTTPCall[list[str]]:
    """The names of an agent's groups by priority; of an agent that isn't there, none."""
    number = agent_number(agent_id)

    def prepare(release: Release) -> HTTPRequest:
        _in_all(release)
        if release.group == "G":
            return get("/v1/agents/groups", agent_header(number))
        return get(f"/v1/agents/{number}/groups")

    return HTTPCall("db_agent_groups", SERVICE, prepare, as_names)


def db_agents_groups() -> HTTPCall[list[AgentIDGroups]]:
    """Every agent that is in a group, with the names of its groups. Until 5.0.0-beta4."""

    def prepare(release: Release) -> HTTPRequest:
        only_in(release, "C", "F", "the groups of all agents")
        return get("/v1/agents/ids/groups")

    def decode(answer: Any) -> list[AgentIDGroups]:
        found = as_object(as_object(answer).get("data", {}))
        return [AgentIDGroups(f"{int(one):03}", as_names(groups)) for one, groups in found.items()]

    return HTTPCall("db_agents_groups", SERVICE, prepare, decode)


def db_group_agents(group: str) -> HTTPCall[list[int]]:
    """The numbers of a group's agents; of a group that isn't there, none. Until 5.0.0-beta4."""
    name = quote(check_group(group), safe="")

    def prepare(release: Release) -> HTTPRequest:
        only_in(release, "C", "F", "the list of a group's agents")
        return get(f"/v1/agents/ids/groups/{name}")

    return HTTPCall("db_group_agents", SERVICE, prepare, as_numbers)


def db_agents_summary(agent_ids: Iterable[int | str] | None = None) -> HTTPCall[AgentsSummary]:
    """Counts of these agents; of none at all for an empty list. None counts all, and each map has its top 5 then."""
    wanted = None if agent_ids is None else numbers(agent_ids)

    def prepare(release: Release) -> HTTPRequest:
        _in_all(release)
        return post("/v1/agents/summary", wanted)

    def decode(answer: Any) -> AgentsSummary:
        found = as_object(answer)
        parts = (as_object(found.get(f"agents_by_{part}", {})) for part in ("status", "os", "groups"))
        return AgentsSummary(*parts)

    return HTTPCall("db_agents_summary", SERVICE, prepare, decode)


def db_agents_sync() -> HTTPCall[dict[str, Any]]:
    """What other nodes of the cluster have to be told: ``syncreq``, ``syncreq_keepalive``, ``syncreq_status``, those
    that are empty left out. wazuh-db marks all of it as told **while it answers**, so this is never sent twice: an
    answer that is lost is lost."""

    def prepare(release: Release) -> HTTPRequest:
        _in_all(release)
        return get("/v1/agents/sync")

    return HTTPCall("db_agents_sync", SERVICE, prepare, as_object, repeatable=False)


def db_set_agents_sync(changes: Mapping[str, Any]) -> HTTPCall[None]:
    """What another node told: the form of ``db_agents_sync``. 1012 for other keys. Never sent twice."""
    if not isinstance(changes, Mapping) or not changes.keys() <= _SYNC_KEYS:
        raise MessageInvalid(1012, f"changes have the keys {', '.join(sorted(_SYNC_KEYS))} and no others")
    message = dict(changes)

    def prepare(release: Release) -> HTTPRequest:
        _in_all(release)
        return post("/v1/agents/sync", message)

    return HTTPCall("db_set_agents_sync", SERVICE, prepare, nothing, repeatable=False, as_bytes=True)


def db_restart_info(agent_ids: Iterable[int | str] = (), *, negate: bool = False) -> HTTPCall[list[dict[str, str]]]:
    """The active ones of these agents (with ``negate`` of the others, without ids of all): ``id`` with at least three
    digits, and ``version``. Until 5.0.0-beta4."""
    wanted = {"ids": numbers(agent_ids), "negate": bool(negate)}

    def prepare(release: Release) -> HTTPRequest:
        only_in(release, "C", "F", "restartinfo")
        return post("/v1/agents/restartinfo", wanted)

    def decode(answer: Any) -> list[dict[str, str]]:
        return [{**one, "id": f"{int(one['id']):03}"} for one in as_objects(as_object(answer)["items"])]

    return HTTPCall("db_restart_info", SERVICE, prepare, decode)


def db_all_agents() -> HTTPCall[list[dict[str, Any]]]:
    """Every agent with what is known of it (``os.name``, ``lastKeepAlive``, …; what is empty is left out). 5.0.0 and
    later."""

    def prepare(release: Release) -> HTTPRequest:
        only_in(release, "G", "G", "the list of all agents over HTTP")
        return get("/v1/agents/all")

    return HTTPCall("db_all_agents", SERVICE, prepare, as_objects)
