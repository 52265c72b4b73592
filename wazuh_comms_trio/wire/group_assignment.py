"""Assigning groups to agents, in wazuh-db's words. Pure code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal, TypeAlias

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.wire.framing import MAX_SEND_BYTES
from wazuh_comms_trio.wire.text_rules import check_agent_id, check_group, check_list

#: ``append`` keeps the groups that an agent has, ``override`` replaces them, ``remove`` takes those named away,
#: ``empty_only``
#: assigns them to agents without any.
GroupMode: TypeAlias = Literal["append", "override", "remove", "empty_only"]

#: ``syncreq`` has the cluster's master tell the other nodes, ``synced`` doesn't: right for a server without a cluster.
SyncStatus: TypeAlias = Literal["syncreq", "synced"]


def group_assignments(
    agent_ids: str | Iterable[str], groups: Iterable[str], mode: GroupMode, sync_status: SyncStatus
) -> list[str]:
    """The queries, each as long as it may be. ``MessageInvalid`` (1012) for an id or a group's name that can't be one,
    and for more groups than a query holds."""
    if mode not in ("append", "override", "remove", "empty_only"):
        raise MessageInvalid(1012, f"{mode!r} is no way to assign groups")
    if sync_status not in ("syncreq", "synced"):
        raise MessageInvalid(1012, f"{sync_status!r} is no synchronisation status of groups")
    names = [check_group(group) for group in check_list(groups, "groups")]
    agents = [agent_ids] if isinstance(agent_ids, str) else check_list(agent_ids, "agents")
    return _queries([int(check_agent_id(one)) for one in agents], names, mode, sync_status)


def _queries(numbers: Iterable[int], names: list[str], mode: str, sync_status: str) -> list[str]:
    """The queries, each as long as it may be. All of it is ASCII: a character is a byte."""
    head = f'global set-agent-groups {{"mode":"{mode}","sync_status":"{sync_status}","data":['
    rest = f',"groups":{json.dumps(names, separators=(",", ":"))}}}'
    queries: list[str] = []
    items: list[str] = []
    size = len(head) + len("]}")
    for number in numbers:
        item = f'{{"id":{number}{rest}'
        if items and size + len(items) + len(item) > MAX_SEND_BYTES:
            queries.append(f"{head}{','.join(items)}]}}")
            items, size = [], len(head) + len("]}")
        items.append(item)
        size += len(item)
        if size > MAX_SEND_BYTES:
            raise MessageInvalid(1012, f"{len(names)} groups are more than a query of {MAX_SEND_BYTES} bytes holds")
    return [*queries, f"{head}{','.join(items)}]}}"] if items else queries
