"""When each agent was heard last, in ``state.db``: rows of their own, so that no agent's row is written each minute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import apsw

from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.embedded.database.text import storable
from wazuh_comms_trio.backends.presence import AHEAD, Heard, LastSeen, NodeNews, Status
from wazuh_comms_trio.foundation.environment import WallClock

_COLUMNS: Final = "CAST(id AS BLOB), seen, sent"
# An agent that was removed meanwhile doesn't come back; of two moments the later one counts, unless it is beyond ?4.
_RECORD: Final = (
    "INSERT INTO agent_presence (id, seen, sent) SELECT id, ?2, ?3 FROM agents WHERE id = ?1"
    " ON CONFLICT (id) DO UPDATE SET seen = iif(seen > ?4, excluded.seen, max(seen, excluded.seen)),"
    " sent = coalesce(iif(sent > ?4, excluded.sent, max(sent, excluded.sent)), sent, excluded.sent)"
)
# NULL is neither; what isn't a number is none, nor is what is beyond ?2, but for whether the agent was ever heard.
_COUNTS: Final = """
SELECT count(*), coalesce(sum(seen IS NULL AND last_login IS NULL), 0),
    coalesce(sum(seen BETWEEN ?1 AND ?2 OR last_login BETWEEN ?1 AND ?2), 0)
FROM (SELECT iif(typeof(seen) = 'real', seen, NULL) AS seen, last_login
    FROM agents LEFT JOIN agent_presence USING (id))
"""


class SqlitePresence:
    """``PresenceStore``. There is one node: it keeps no ``news``, which are in the daemon's memory."""

    keeps_news = False

    def __init__(self, database: Database, wall_clock: WallClock) -> None:
        self._database = database
        self._now = wall_clock

    async def record(self, heard: Sequence[Heard]) -> None:
        latest = self._now() + AHEAD
        rows = [(each.agent_id.lower(), each.seen, each.sent, latest) for each in heard if _is_sound(each)]

        def write(connection: apsw.Connection) -> None:
            connection.executemany(_RECORD, rows)

        await self._database.write(write, durable=False)

    async def last_seen(
        self, since: float | None = None, *, before: float | None = None, sent_before: float | None = None
    ) -> Mapping[str, LastSeen]:
        conditions = {"seen >= ?": since, "seen < ?": before, "sent < ?": sent_before}
        wanted = {condition: moment for condition, moment in conditions.items() if moment is not None}
        where = f" WHERE {' AND '.join(wanted)}" if wanted else ""

        def select(connection: apsw.Connection) -> dict[str, LastSeen]:
            query = f"SELECT {_COLUMNS} FROM agent_presence{where}"
            return dict(_read(connection.execute(query, tuple(wanted.values()))))

        return await self._database.read(select)

    async def last_seen_of(self, agent_ids: Sequence[str]) -> Mapping[str, LastSeen]:
        wanted = [agent_id.lower() for agent_id in agent_ids if storable(agent_id)]
        query = f"SELECT {_COLUMNS} FROM agent_presence WHERE id IN ({', '.join('?' * len(wanted))})"
        return await self._database.read(lambda connection: dict(_read(connection.execute(query, wanted))))

    async def about(self, agent_id: str) -> Sequence[NodeNews]:
        found = await self.last_seen_of([agent_id])
        return tuple(NodeNews("", "", seen.seen, seen.sent) for seen in found.values())

    async def take_watch(self, holder: str, now: float, seconds: float) -> str:
        """Gives the right to whoever asks: an embedded store has one node, and only that node's leader asks."""
        query = "SELECT CAST(state AS BLOB) FROM presence_watch"
        row = await self._database.read(lambda connection: connection.execute(query).get)
        return row.decode("utf-8", "replace") if isinstance(row, bytes) else ""

    async def keep_watch(self, holder: str, state: str) -> bool:
        def write(connection: apsw.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO presence_watch VALUES (1, ?)", (state,))

        await self._database.write(write)
        return True

    async def counts(self, since: float) -> Mapping[Status, int]:
        latest = self._now() + AHEAD

        def count(connection: apsw.Connection) -> dict[Status, int]:
            row: Any = connection.execute(_COUNTS, (since, latest)).fetchone()
            every, never, active = row
            return {"active": active, "disconnected": every - never - active, "never": never}

        return await self._database.read(count)


def _is_sound(heard: Heard) -> bool:
    return heard.seen is not None and storable(heard.agent_id)


def _read(rows: Iterable[Any]) -> Iterator[tuple[str, LastSeen]]:
    """Rows of id as bytes, so that a damaged one costs no other anything; what no number is was not written by us."""
    for agent_id, seen, sent in rows:
        if isinstance(agent_id, bytes) and isinstance(seen, float):
            yield agent_id.decode("utf-8", "replace"), LastSeen(seen, sent if isinstance(sent, float) else None)
