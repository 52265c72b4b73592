"""Whether the folder of events is the one that was written to. Its list of segments goes with it when it goes, and a
daemon makes a new one: so ``state.db`` has a number that the folder has in a file, too.

The number is a row of ``counters``; none: of an earlier version, or never used; negative: the folder was found to be
gone. A restore takes the row away, since it makes another folder.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import apsw
import trio

from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.file_writes import link_file, rename, sync, write_all
from wazuh_comms_trio.foundation.folders import (
    draft,
    make_folder,
    open_folder,
    open_regular,
    remove_left_drafts,
    sync_folder,
)
from wazuh_comms_trio.foundation.resources import left_out_without_threads

logger = logging.getLogger(__name__)

FILE: Final = ".events-id"
ROW: Final = "events_folder"

_DRAFT: Final = re.compile(r"\.events-id-[0-9a-f]{8}")
#: Seconds from one look to the next.
_INTERVAL: Final = 3600.0
_IS_GONE: Final = "the folder that events were written to is gone: what was acknowledged and was in it is missing"


async def watch_folder(folder: Path, database: Database) -> None:
    """Until cancelled: notes whose folder it is, and tells the log once that it is another one."""
    with left_out_without_threads():
        await trio.to_thread.run_sync(remove_left_drafts, folder, _DRAFT)
    while True:
        with suppress(BackendUnavailable), left_out_without_threads():
            try:
                await _look(folder, database)
            except OSError as exc:
                logger.warning("events: %s can't be marked: %s", folder, exc)
        await trio.sleep(_INTERVAL)


async def _look(folder: Path, database: Database) -> None:
    known = await database.read(noted_id)
    if known is None:
        number = await trio.to_thread.run_sync(_make_id, folder, secrets.randbits(62) + 1)

        def note(connection: apsw.Connection) -> None:
            connection.execute("INSERT INTO counters VALUES (?, ?) ON CONFLICT DO NOTHING", (ROW, number))

        await database.write(note)
        return
    present = await trio.to_thread.run_sync(read_id, folder)
    if present == abs(known):
        return
    number = abs(known) if present is None else present
    # Noted first: who is killed between the two would leave a folder that looks as if it had never been gone.
    if await database.write(partial(_note_gone, number=number)):
        logger.error("events: %s: %s", folder, _IS_GONE)
    await trio.to_thread.run_sync(_make_id, folder, number)


def noted_id(connection: apsw.Connection) -> int | None:
    """What the database says."""
    value = connection.execute("SELECT value FROM counters WHERE name = ? AND typeof(value) = 'integer'", (ROW,)).get
    assert value is None or isinstance(value, int)
    return value


def _note_gone(connection: apsw.Connection, number: int) -> bool:
    """Returns whether it is news."""
    query = "UPDATE counters SET value = ? WHERE name = ? AND value > 0 RETURNING 1"
    return connection.execute(query, (-number, ROW)).get is not None


def read_id(folder: Path) -> int | None:
    """What the folder says; None where it says nothing, or isn't there. Raises ``OSError``."""
    try:
        descriptor = open_regular(folder / FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if descriptor is None:
        return None
    try:
        return int(os.read(descriptor, 64))
    except ValueError:
        return None
    finally:
        os.close(descriptor)


def find_loss(connection: apsw.Connection, folder: Path) -> str | None:
    """What is wrong, of a state's database and its folder of events; None where nothing is known to be. Raises
    ``OSError``."""
    known = noted_id(connection)
    return None if known is None or read_id(folder) == known else _IS_GONE


def accept_loss(connection: apsw.Connection, folder: Path) -> None:
    """From now on nothing is missed. Raises ``OSError``."""
    known = noted_id(connection)
    if known is not None:
        number = _make_id(folder, abs(known))
        connection.execute("UPDATE counters SET value = ? WHERE name = ?", (number, ROW)).get  # noqa: B018


def forget_folder(connection: apsw.Connection) -> None:
    """Another folder takes its place. A file that no daemon has got ready yet knows of none."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'counters'").get is not None:
        connection.execute("DELETE FROM counters WHERE name = ?", (ROW,)).get  # noqa: B018


def _make_id(folder: Path, number: int) -> int:
    """Marks the folder, which is made if it isn't there; returns the mark that it has then: of several processes the
    first one's counts. Durable on return."""
    make_folder(folder)
    present = read_id(folder)
    if present is not None:
        return present
    path = folder / f"{FILE}-{secrets.token_hex(4)}"
    with draft(path) as descriptor, open_folder(folder) as opened:
        write_all(descriptor, b"%d\n" % number)
        sync(descriptor)
        try:
            link_file(path, FILE, opened)
        except FileExistsError:
            if read_id(folder) is None:  # what has its name isn't one
                rename(path, folder / FILE)
    sync_folder(folder)
    present = read_id(folder)
    return number if present is None else present
