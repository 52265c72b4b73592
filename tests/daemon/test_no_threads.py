"""Where the system lets the process have no further thread, what it does now and then is left out, and it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.backends.embedded.database.database import Database
from wazuh_comms_trio.backends.embedded.ndjson import folder_id, scrub
from wazuh_comms_trio.backends.memory.stores import memory_backends
from wazuh_comms_trio.daemon.worker import allocator, gauges, huge_pages
from wazuh_comms_trio.foundation.resources import left_out_without_threads


class Empty:
    """One in which nothing is noted yet."""

    async def read(self, work: object) -> None:
        await trio.lowlevel.checkpoint()


async def _gauges(run: Any, folder: Path) -> None:
    backends = memory_backends(wall_clock=lambda: 0.0)
    await gauges.WorkerGauges(backends, cast(Any, None), cast(Any, None)).run()


TASKS: dict[str, tuple[Callable[[Any, Path], Any], float]] = {
    "free memory": (lambda run, _: allocator.return_free_memory(run), allocator.INTERVAL),
    "huge pages": (lambda run, _: huge_pages.use_huge_pages(run), huge_pages.INTERVAL),
    "gauges": (_gauges, gauges.INTERVAL),
    "damage": (lambda _, folder: scrub.tell_damage(folder), scrub.INTERVAL),
    "whose folder": (lambda _, folder: folder_id.watch_folder(folder, cast(Database, Empty())), 3600.0),
}


@pytest.mark.parametrize("name", TASKS)
async def test_it_goes_on(
    name: str, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0

    async def run(*_: object, **__: object) -> None:
        nonlocal refused
        await trio.lowlevel.checkpoint()
        refused += 1
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", run)
    monkeypatch.setattr(huge_pages, "huge_page_bytes", lambda: 2097152)
    monkeypatch.setattr(huge_pages, "can_collapse", lambda: True)
    task, interval = TASKS[name]
    with trio.move_on_after(3 * interval):
        await task(run, tmp_path)
    assert refused >= 2


async def test_an_error_of_ours_comes_out() -> None:
    with pytest.raises(RuntimeError, match="dictionary"), left_out_without_threads():
        raise RuntimeError("dictionary changed size during iteration")
