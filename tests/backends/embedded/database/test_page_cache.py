"""What a connection has read of its file doesn't stay in memory for ever."""

from __future__ import annotations

from pathlib import Path

import apsw
import trio
from trio.testing import MockClock

from wazuh_comms_trio.backends.embedded.database.database import Database, open_database
from wazuh_comms_trio.backends.embedded.database.page_cache import INTERVAL, PageCache
from wazuh_comms_trio.backends.embedded.state_schema import STATE

PAGES = 400
BYTES = 4000  # of a row: some two are on a page


def fill(connection: apsw.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS filler (text TEXT)")
    connection.executemany("INSERT INTO filler VALUES (?)", [("x" * BYTES,)] * 2 * PAGES)


def read_all(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT sum(length(text)) FROM filler").get)


def cached_bytes(connection: apsw.Connection) -> int:
    return int(connection.status(apsw.SQLITE_DBSTATUS_CACHE_USED)[0])


def test_every_ten_seconds(autojump_clock: MockClock) -> None:
    async def main() -> None:
        cache, due = PageCache(), []
        for _ in range(35):
            due.append(cache.is_due())
            await trio.sleep(1)
        assert [second for second, each in enumerate(due) if each] == [10, 20, 30]

    trio.run(main, clock=autojump_clock)


async def test_each_connection_gives_back_what_it_has_read(tmp_path: Path, mock_clock: MockClock) -> None:
    async def seen(database: Database) -> list[int]:
        return [
            await database.write(cached_bytes),
            await database.read(cached_bytes),
            await database.read_now(cached_bytes),
        ]

    async with open_database(tmp_path / "state.db", STATE) as database:
        await database.write(fill)
        for read in (database.write, database.read, database.read_now):
            assert await read(read_all) == 2 * PAGES * BYTES
        assert all(each > PAGES * BYTES for each in await seen(database))
        mock_clock.jump(INTERVAL)
        assert all(each < PAGES * BYTES / 10 for each in await seen(database))
        assert await database.read(read_all) == 2 * PAGES * BYTES
        assert (await seen(database))[1] > PAGES * BYTES  # until the next time
