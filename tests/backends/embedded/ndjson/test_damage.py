"""Damaged segments: readers say what of acknowledged events can't be read, and show everything else."""

import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from tests.contract.harness import A1, embedded_config, stored_bodies
from wazuh_comms_trio.backends.embedded.ndjson.damage import Damage, find_damage
from wazuh_comms_trio.backends.embedded.ndjson.ledger import LEDGER, damaged_slots, forget, promises
from wazuh_comms_trio.backends.embedded.ndjson.segments import segment_files
from wazuh_comms_trio.backends.embedded.reader import tail_events
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backup.create import backup
from wazuh_comms_trio.config.models import Config

pytestmark = pytest.mark.real_clock

COUNT = 9


async def pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def body_of(number: int) -> bytes:
    return b'{"agent":{}}\n{"module":"m"}\n{"n":%d}\n' % number


@pytest.fixture
async def config(tmp_path: Path) -> Config:
    """A state with nine records in two files, whose writers have ended."""
    made = embedded_config(tmp_path)
    for first in (0, 4):
        async with open_backends(made) as backends:
            for number in range(first, first + 4 if first == 0 else COUNT):
                async with aclosing(pieces(body_of(number))) as body:
                    await backends.engine.send_events(body, agent_id=A1, length=None)
    return made


def events(config: Config) -> Path:
    return config.communications_api.embedded.path / "events"


def last(config: Config) -> Path:
    return segment_files(events(config))[-1].path


async def tail(config: Config) -> tuple[int, list[Damage]]:
    """How many events are shown, and what is told."""
    damage: list[Damage] = []
    folder = config.communications_api.embedded.path
    shown = [event async for event in tail_events(folder, on_damage=damage.append)]
    return len(shown), damage


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0x20
    path.write_bytes(data)


def zero_the_beginning(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes(300) + data[300:])


def cut_at_a_record(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b'{"@received"')])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "lost", "bytes_lost"),
    [
        (flip, 1, 192 + len(body_of(4))),
        (zero_the_beginning, 2, 2 * (192 + len(body_of(4)))),
        (cut_at_a_record, 1, 192 + len(body_of(4))),
        (empty, 5, 5 * (192 + len(body_of(4)))),
        (Path.unlink, 5, 5 * (192 + len(body_of(4)))),
    ],
)
async def test_what_is_lost_is_told(
    config: Config, spoil: Callable[[Path], None], lost: int, bytes_lost: int, tmp_path: Path
) -> None:
    assert await tail(config) == (COUNT, [])
    assert backup(config, tmp_path / "whole.backup").damaged == ()
    name = last(config).name
    spoil(last(config))
    shown, (damage,) = await tail(config)
    assert shown == COUNT - lost
    assert (damage.file, damage.records, damage.exact, damage.bytes) == (name, lost, True, bytes_lost)
    assert list(find_damage(events(config))) == [damage]
    contents = backup(config, tmp_path / "damaged.backup")
    assert contents.damaged == (f"events/{damage}",)


@pytest.mark.expects_errors
async def test_the_daemons_log_is_told_once(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    flip(last(config))
    async with open_backends(config, tolerant=True):
        with trio.fail_after(10):
            while not caplog.records:  # noqa: ASYNC110  # a log announces nothing
                await trio.sleep(0.01)
    (record,) = caplog.records
    assert "1 record can't be read" in record.getMessage()
    assert last(config).name in record.getMessage()


@pytest.mark.expects_errors
async def test_the_daemons_log_is_told_of_a_ledger_that_is_none(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    (events(config) / LEDGER).unlink()
    (events(config) / LEDGER).mkdir()
    async with open_backends(config, tolerant=True):
        with trio.fail_after(10):
            while not caplog.records:  # noqa: ASYNC110  # a log announces nothing
                await trio.sleep(0.01)
    (record,) = caplog.records
    assert f"{LEDGER}: what has the name" in record.getMessage()


async def test_what_a_crash_cut_off_is_no_damage(config: Config) -> None:
    with last(config).open("ab") as file:
        file.write(b'{"@received":"2025-03-11T19:12:36.629Z","agent":"x","bytes":100,"crc')
    assert await tail(config) == (COUNT, [])


async def test_without_a_ledger_what_is_seen_is_told(config: Config) -> None:
    """As written by earlier versions: what is in the middle of a file is noticed, how many records it were isn't."""
    (events(config) / LEDGER).unlink()
    flip(last(config))
    shown, (damage,) = await tail(config)
    assert (shown, damage.records, damage.exact) == (COUNT - 1, 1, False)
    async with open_backends(config):
        pass
    assert {promise.source for promise in promises(events(config)).values()} == {"found"}
    empty(last(config))
    shown, (damage,) = await tail(config)
    assert (shown, damage.exact) == (4, False)
    assert "empty" in damage.cause


@pytest.mark.parametrize("bits", [0x01, 0xFF])
async def test_every_byte_of_the_ledger_flipped(config: Config, bits: int) -> None:
    """A slot that can't be read is as none: nothing false is told."""
    ledger = events(config) / LEDGER
    whole = ledger.read_bytes()
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= bits
        ledger.write_bytes(data)
        assert list(find_damage(events(config))) == []
        assert damaged_slots(events(config)) == 1 or len(promises(events(config))) == 2


async def test_entries_that_a_power_cut_kept_from_the_disk(config: Config) -> None:
    """They are zeros where one behind them was kept: nothing is told of it, and they are used again."""
    ledger = events(config) / LEDGER
    whole = ledger.read_bytes()
    assert len(whole) == 2 * 256
    ledger.write_bytes(bytes(256) + whole[256:])
    assert damaged_slots(events(config)) == 0
    assert len(promises(events(config))) == 1
    async with open_backends(config):
        pass
    assert ledger.stat().st_size == len(whole)
    assert len(promises(events(config))) == 2


async def test_foreign_files_and_folders_harm_nothing(config: Config, tmp_path: Path) -> None:
    folder = events(config)
    (folder / "folder.ndjson").mkdir()
    (folder / "01750000000000-1-000001-00000000.ndjson").mkdir()
    (folder / "notes.ndjson").write_text("mine\n" * 5)
    (folder / "no backup name.ndjson").write_text("mine\n")
    (folder / ".spool-folder").mkdir()
    os.mkfifo(folder / "pipe.ndjson")
    (folder / "link.ndjson").symlink_to("/etc/passwd")
    assert await tail(config) == (COUNT, [])
    async with open_backends(config) as backends:
        async with aclosing(pieces(body_of(COUNT))) as body:
            await backends.engine.send_events(body, agent_id=A1, length=None)
        await backends.engine.probe()  # type: ignore[attr-defined]
    assert len(stored_bodies(config.communications_api.embedded.path)) == COUNT + 1
    contents = backup(config, tmp_path / "one.backup")
    assert contents.damaged == ()
    assert (await tail(config))[0] == COUNT + 1


async def test_slots_of_dropped_segments_are_used_again(tmp_path: Path) -> None:
    config = embedded_config(tmp_path)
    folder = events(config)
    sizes = []
    for _ in range(5):
        async with open_backends(config) as backends, aclosing(pieces(body_of(1))) as body:
            await backends.engine.send_events(body, agent_id=A1, length=None)
        sizes.append((folder / LEDGER).stat().st_size)
        forget(folder, [last(config).name])
        last(config).unlink()
    assert len(set(sizes)) == 1
    shutil.rmtree(folder)
