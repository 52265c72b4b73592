"""The simulated disk: what was synced stays, and what stands on that."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.simulation.stores.disk import SECTOR, Disk
from wazuh_comms_trio.backends.embedded.ndjson.damage import find_damage
from wazuh_comms_trio.backends.embedded.ndjson.ledger import LEDGER, clear_damaged, damaged_slots
from wazuh_comms_trio.backends.embedded.ndjson.segments import Appended, Segments
from wazuh_comms_trio.backends.embedded.stores import open_sqlite
from wazuh_comms_trio.backends.interfaces import Action, Command, CommandReport, CommandResult, Target
from wazuh_comms_trio.config.models import EmbeddedEvents
from wazuh_comms_trio.foundation.file_writes import cut, sync, write_all, write_all_at
from wazuh_comms_trio.foundation.folders import sync_folder

AGENT = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"


@contextmanager
def disk_under(folder: Path, seed: int = 0) -> Iterator[Disk]:
    disk = Disk(folder, Random(seed), is_exempt=lambda: False, meets=lambda call: None, on_cut=lambda: None)
    disk.rest()
    with disk.mounted():
        yield disk


def after_cuts(folder: Path) -> set[bytes | None]:
    """What a file may hold after a power cut; None: it is gone."""
    found: set[bytes | None] = set()
    for seed in range(60):
        folder.mkdir()
        with disk_under(folder, seed) as disk:
            descriptor = os.open(folder / "file", os.O_RDWR | os.O_CREAT)
            write_all(descriptor, b"a" * SECTOR)
            sync(descriptor)
            sync_folder(folder)
            write_all_at(descriptor, b"b" * (2 * SECTOR), SECTOR // 2)
            os.close(descriptor)
            disk.cut()
            disk.come_back()
        file = folder / "file"
        found.add(file.read_bytes() if file.exists() else None)
        file.unlink(missing_ok=True)
        folder.rmdir()
    return found


def test_what_was_not_synced_is_torn_at_sectors(tmp_path: Path) -> None:
    found = after_cuts(tmp_path / "disk")
    half = SECTOR // 2
    assert b"a" * SECTOR in found
    assert b"a" * half + b"b" * (2 * SECTOR) in found
    assert b"a" * half + b"b" * half in found  # the first sector alone
    assert None not in found
    assert all(each is not None and each[:half] == b"a" * half for each in found)


def test_a_folder_lasts_once_its_parent_is_synced(tmp_path: Path) -> None:
    there: dict[bool, set[bool]] = {False: set(), True: set()}
    for seed in range(40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with disk_under(folder, seed) as disk:
            inner = folder / "made" / "inner"
            inner.mkdir(parents=True)
            descriptor = os.open(inner / "file", os.O_RDWR | os.O_CREAT)
            write_all(descriptor, b"a")
            sync(descriptor)
            os.close(descriptor)
            sync_folder(inner)
            if is_synced := bool(seed % 2):
                sync_folder(inner.parent)
                sync_folder(folder)
            disk.cut()
            disk.come_back()
        there[is_synced].add((inner / "file").exists())
        assert inner.parent.exists() or not inner.exists()
    assert there == {False: {False, True}, True: {True}}


def test_a_name_lasts_once_its_folder_is_synced(tmp_path: Path) -> None:
    gone = set()
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with disk_under(folder, seed) as disk:
            for name in ("synced", "new"):
                descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT)
                write_all(descriptor, b"content")
                cut(descriptor, 4)
                sync(descriptor)
                os.close(descriptor)
                if name == "synced":
                    sync_folder(folder)
            disk.cut()
            disk.come_back()
        assert (folder / "synced").read_bytes() == b"cont"
        gone.add((folder / "new").exists())
    assert gone == {True, False}


def test_a_segment_that_was_deleted_for_room_is_not_missed_after_a_power_cut(tmp_path: Path) -> None:
    settings = EmbeddedEvents(max_file_bytes=400, max_bytes=1000, on_full="delete_oldest")
    body = b'{"m":"%b"}\n' % (b"x" * 200)
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with disk_under(folder, seed) as disk:
            segments = Segments(folder, settings, wall_clock=lambda: 1000.0, logger=logging.getLogger(__name__))
            for _ in range(4):
                segments.append([Appended(AGENT, body)])
            disk.cut()
            segments.rotate()
            disk.come_back()
        assert list(find_damage(folder)) == []


def test_an_entry_that_was_taken_out_is_not_damaged_again_after_a_power_cut(tmp_path: Path) -> None:
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with disk_under(folder, seed) as disk:
            descriptor = os.open(folder / LEDGER, os.O_RDWR | os.O_CREAT)
            write_all_at(descriptor, b"x" * 255 + b"\n", 0)
            sync(descriptor)
            os.close(descriptor)
            sync_folder(folder)
            assert damaged_slots(folder) == 1
            clear_damaged(folder)
            disk.cut()
            disk.come_back()
        assert damaged_slots(folder) == 0


@pytest.mark.real_clock
@pytest.mark.parametrize("seed", range(5))
async def test_a_report_after_a_power_cut_is_of_a_command_that_was_offered(tmp_path: Path, seed: int) -> None:
    """The agent has the command, the node doesn't know any more that it was delivered."""
    with disk_under(tmp_path, seed) as disk:
        async with open_sqlite(tmp_path, wall_clock=lambda: 1000.0) as stores:
            await stores.commands.add([Command("c1", Target("agent", AGENT), Action("restart"), timeout=100)])
            assert len(await stores.commands.claim([AGENT])) == 1
            disk.cut()
        disk.come_back()
    async with open_sqlite(tmp_path, wall_clock=lambda: 1000.0) as stores:
        (result,) = await stores.commands.report([CommandReport(AGENT, "c1", CommandResult(code=0))])
        assert result.status == 200
        command = await stores.commands.get("c1")
        assert command is not None
        assert command.status == "success"
