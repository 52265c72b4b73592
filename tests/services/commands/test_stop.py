"""A stop while the store doesn't answer."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import trio
from trio.testing import MockClock

from tests.services.bench import A2, command, open_dispatch


async def test_what_waits_behind_a_call_that_hangs_is_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store wasn't told it would give back when it is closed. Found by the simulator."""
    told: list[set[str]] = []

    async def mark_sent(document_ids: Collection[str]) -> None:
        told.append(set(document_ids))
        if len(told) == 1:
            await trio.sleep_forever()

    async with open_dispatch() as dispatch:
        monkeypatch.setattr(dispatch.backends.commands, "mark_sent", mark_sent)
        await dispatch.backends.commands.add([command("c1"), command("c2", A2)])
        await dispatch.poll()
        await dispatch.poll(A2)
        assert told == [{"c1"}]
    assert told == [{"c1"}, {"c1", "c2"}]


@pytest.mark.expects_errors
async def test_a_last_call_that_fails_ends_a_stop_in_order(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As any other failure of the store's: also one that is an error of ours."""
    calls = 0

    async def mark_sent(document_ids: Collection[str]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await trio.sleep_forever()
        raise RuntimeError

    async with open_dispatch() as dispatch:
        monkeypatch.setattr(dispatch.backends.commands, "mark_sent", mark_sent)
        await dispatch.backends.commands.add([command("c1")])
        await dispatch.poll()
    assert calls == 2
