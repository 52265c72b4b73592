"""Agents as wazuh-db knows them: which there are, what is stored about one, and the groups they are assigned to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from wazuh_comms_trio.errors import AnswerInvalid, MessageInvalid
from wazuh_comms_trio.transport.clients.wazuh_db import WazuhDB
from wazuh_comms_trio.wire.group_assignment import GroupMode, SyncStatus, group_assignments
from wazuh_comms_trio.wire.text_rules import check_agent_id
from wazuh_comms_trio.wire.text_rules import check_group as check_group

ConnectionStatus: TypeAlias = Literal["active", "disconnected", "pending", "never_connected"]


async def agent_ids(db: WazuhDB, *, status: ConnectionStatus | None = None, group: str | None = None) -> list[str]:
    """The ids of the agents, in ascending order: all, those with one connection status, those of one group, or those
    with both.

    Ids are as written everywhere else, with at least three digits; the server itself (``000``) is among them where
    wazuh-db lists it. Errors as ``WazuhDB.pages``. Cancelled: the connection is given up.
    """
    found: set[int] | None = None
    queries = []
    if status is not None:
        queries.append(f"global get-agents-by-connection-status {{last_id}} {_word(status, 'a connection status')}")
    if group is not None:
        queries.append(f"global get-group-agents {check_group(group)} last_id {{last_id}}")
    for query in queries or ["global get-all-agents last_id {last_id}"]:
        numbers = {_number(item) async for page in db.pages(query) for item in page or ()}
        found = numbers if found is None else found & numbers
    return [f"{number:03}" for number in sorted(found or ())]


async def agent_info(db: WazuhDB, agent_id: str) -> dict[str, Any] | None:
    """What wazuh-db has stored about an agent, None when there is no such agent. Columns that are NULL are absent.
    Errors as ``WazuhDB.query``. Cancelled: the connection is given up."""
    rows = await db.query(f"global get-agent-info {_id_number(agent_id)}")
    if not rows:
        return None
    if not isinstance(rows, list) or not isinstance(rows[0], dict):
        raise AnswerInvalid(1014, f"no row but {rows!r:.60}")
    return rows[0]


async def assign_groups(
    db: WazuhDB,
    agent_ids: str | Iterable[str],
    groups: Iterable[str],
    *,
    mode: GroupMode = "append",
    sync_status: SyncStatus = "syncreq",
) -> None:
    """Assign groups to one agent or to several, as many in one query as its 65536 bytes hold. Errors as
    ``WazuhDB.query``; ``MessageInvalid`` (1012) for an id or a group's name that can't be one, and for more groups than
    a query holds, before anything was sent.

    Cancelled, or failed at a later query, the earlier ones hold; doing it again does no harm.
    """
    for query in group_assignments(agent_ids, groups, mode, sync_status):
        await db.query(query)


def _word(text: str, what: str) -> str:
    if not re.fullmatch(r"[a-z_]+", text):
        raise MessageInvalid(1012, f"{text!r:.60} is not {what}")
    return text


def _id_number(agent_id: str) -> int:
    """wazuh-db takes ids as numbers."""
    return int(check_agent_id(agent_id))


def _number(item: Any) -> int:
    """An agent's number in a page: the bare number or a row with ``id``."""
    number = item.get("id") if isinstance(item, dict) else item
    if not isinstance(number, int) or isinstance(number, bool):
        raise AnswerInvalid(1014, f"an agent without an id: {item!r:.60}")
    return number
