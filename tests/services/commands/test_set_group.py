"""Several ``set-group`` of one agent: it ends in the groups of the last one, and so does the registry."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import trio
from trio.testing import MockClock

from tests.services.bench import A1, command, open_dispatch
from wazuh_comms_trio.backends.interfaces import Action, Command

#: So many that no other order comes out right by chance.
_MANY = 12


def _commands() -> list[Command]:
    return [
        command(f"c{number}", action=Action("set-group", args={"groups": [f"g{number}"]})) for number in range(_MANY)
    ]


async def test_the_last_of_one_delivery_counts(autojump_clock: MockClock) -> None:
    """Found by the simulator."""
    async with open_dispatch() as dispatch:
        await dispatch.backends.commands.add(_commands())
        assert await dispatch.poll() == [f"c{number}" for number in range(_MANY)]
        agent = await dispatch.backends.agents.get(A1)
        assert agent is not None
        assert agent.groups == (f"g{_MANY - 1}",)


async def test_what_is_told_last_is_told_in_order(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a stop, while the store doesn't answer."""
    told: list[list[str]] = []

    async def mark_sent(document_ids: Collection[str]) -> None:
        told.append(list(document_ids))
        if len(told) == 1:
            await trio.sleep_forever()

    async with open_dispatch() as dispatch:
        monkeypatch.setattr(dispatch.backends.commands, "mark_sent", mark_sent)
        await dispatch.backends.commands.add(_commands())
        await dispatch.poll()
    assert told == [[f"c{number}" for number in range(_MANY)]] * 2
