"""Python's lock is given up between the rows of a thread that makes many short calls of SQLite."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from wazuh_comms_trio.backends.embedded.database import pauses as pauses_module
from wazuh_comms_trio.backends.embedded.database.pauses import ROWS_AT_ONCE, with_pauses
from wazuh_comms_trio.backends.embedded.stores import open_sqlite
from wazuh_comms_trio.backends.interfaces import Action, Command, Target

COUNT = 500


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The thread of each; what else sleeps meanwhile, for a locked file for instance, isn't counted."""
    made: list[str] = []

    def noted(seconds: float) -> None:
        made.append(threading.current_thread().name)
        time.sleep(seconds)

    monkeypatch.setattr(pauses_module, "time", SimpleNamespace(sleep=noted))
    return made


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_ONCE, 3 * ROWS_AT_ONCE + 1])
def test_all_items_in_their_order_and_a_pause_after_each_few(count: int, pauses: list[str]) -> None:
    assert list(with_pauses(range(count))) == list(range(count))
    assert len(pauses) == count // ROWS_AT_ONCE


@pytest.mark.real_clock
async def test_the_store_pauses_in_its_threads_alone(tmp_path: Path, pauses: list[str]) -> None:
    """A command for a whole fleet is claimed, marked and given back beside the event loop."""
    agents = [f"{number:08x}-39b5-7bfb-a7bc-c5c6835f03d1" for number in range(COUNT)]
    ids = [f"c-{agent}" for agent in agents]
    async with open_sqlite(tmp_path) as stores:
        commands = stores.commands
        await commands.add(
            [Command(i, Target("agent", agent), Action("x")) for i, agent in zip(ids, agents, strict=True)]
        )
        pauses.clear()
        assert len(await commands.claim(agents[:16])) == 16  # looked for on the event loop
        assert len(await commands.claim(agents[16:])) == COUNT - 16
        assert len(pauses) >= 2 * ((COUNT - 16) // ROWS_AT_ONCE)  # claimed, and read
        marked = len(pauses)
        await commands.mark_sent(ids[:250])
        await commands.release(ids[250:])
        assert len(pauses) >= marked + 2 * (250 // ROWS_AT_ONCE)
        assert await commands.claim(agents) != []  # what was given back
    assert threading.main_thread().name not in pauses
