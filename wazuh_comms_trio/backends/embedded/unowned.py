"""Documents of agents that aren't enrolled and whose removal nobody noted: an earlier version removed the agent.

They stay until the operator deletes them: no age is known, and an agent of that uuid may come back. Whose a document is
stands in its id, where ids are an agent's own (``events.document_id: agent``).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import apsw
import trio

from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.embedded.pruning import OF_AGENT, PAUSE, ROWS

_OWNER: Final = re.compile(rb"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})_")
_KNOWN: Final = "SELECT 1 FROM agents WHERE id = :agent UNION ALL SELECT 1 FROM removed_agents WHERE id = :agent"


def unowned_documents(connection: apsw.Connection) -> Counter[str]:
    """How many documents have no enrolled agent, by uuid. Goes from agent to agent through the index of ids, not
    through all documents."""
    found: Counter[str] = Counter()
    for (index,) in connection.execute("SELECT no FROM indices").fetchall():
        ids = "SELECT CAST(id AS BLOB) FROM documents WHERE index_no = ?"  # a damaged one may be no text
        query = f"{ids} AND id > CAST(? AS TEXT) ORDER BY id LIMIT 1"
        document_id = connection.execute(query, (index, b"")).get
        while isinstance(document_id, bytes):
            after = document_id
            if match := _OWNER.match(document_id):
                owner = match[1].decode()
                after = match[1] + b"`"  # behind all ids that begin with the uuid and an underscore
                if connection.execute(_KNOWN, {"agent": owner}).get is None:
                    values = {"index": index, "agent": owner, "rows": -1}
                    count = connection.execute(f"SELECT count(*) FROM ({OF_AGENT})", values).get
                    found[owner] += count if isinstance(count, int) else 0
            document_id = connection.execute(query, (index, after)).get
    return found


async def delete_unowned(database: Database) -> Counter[str]:
    """Deletes them in small steps, as pruning does; how many went, by uuid. An agent that is enrolled meanwhile keeps
    its documents. Raises ``BackendUnavailable``. Cancelled: some are gone."""
    gone: Counter[str] = Counter()
    for agent_id in await database.read(unowned_documents):

        def step(connection: apsw.Connection, agent_id: str = agent_id) -> int:
            if connection.execute(_KNOWN, {"agent": agent_id}).get is not None:
                return 0
            for (index,) in connection.execute("SELECT no FROM indices").fetchall():
                values = {"index": index, "agent": agent_id, "rows": ROWS}
                connection.execute(f"DELETE FROM documents WHERE no IN ({OF_AGENT})", values)
                if connection.changes():
                    return connection.changes()
            return 0

        while count := await database.write(step, durable=False):
            gone[agent_id] += count
            await trio.sleep(PAUSE)
    return gone
