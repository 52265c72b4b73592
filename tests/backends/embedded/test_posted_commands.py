"""A command that is posted for a parked agent: stored and claimed in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import apsw
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.services.bench import A1, agent, caller, command, ids
from wazuh_comms_trio.backends.embedded.stores import SqliteStores, open_sqlite
from wazuh_comms_trio.backends.interfaces import Action, Command, CommandReport, CommandResult, Target
from wazuh_comms_trio.services.commands.command_delivery import CommandDelivery
from wazuh_comms_trio.services.commands.dispatcher import CommandDispatcher

pytestmark = pytest.mark.real_clock


async def test_it_is_delivered_after_one_commit_and_no_more(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path, wall_clock=lambda: 1000.0) as stores, trio.open_nursery() as nursery:
        await stores.agents.add(agent(A1))
        dispatcher = CommandDispatcher(
            stores.commands, stores.agents, poll_timeout=60, wall_clock=lambda: 1000.0, rng=Random(0)
        )
        await nursery.start(dispatcher.run)
        for number in range(3):
            got: list[tuple[CommandDelivery, int]] = []
            ended = trio.Event()

            async def poll(got: list[tuple[CommandDelivery, int]] = got, ended: trio.Event = ended) -> None:
                delivery = await dispatcher.poll(caller(A1), deadline=trio.current_time() + 60)
                assert delivery is not None
                got.append((delivery, stores.database.commits[1]))
                await delivery.confirm()
                ended.set()

            nursery.start_soon(poll)
            while not dispatcher.parked:
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked(0.01)
            before = stores.database.commits[1]
            assert ids(await dispatcher.posts.post([command(f"c{number}")])) == [f"c{number}"]
            [(delivery, after)] = got
            assert ids(delivery.commands) == [f"c{number}"]
            assert after == before + 1
            await ended.wait()
        dispatcher.close()


@pytest.mark.parametrize("noted", [False, True])
async def test_a_claim_of_an_earlier_version_leaves_later_ones_their_turn(tmp_path: Path, noted: bool) -> None:
    """It has no turn: its result comes while one that was delivered after it isn't noted yet."""
    async with open_sqlite(tmp_path, wall_clock=lambda: 1000.0) as stores:
        await stores.agents.add(agent(A1))
        for name in ("first", "second"):
            await stores.commands.add(
                [Command(name, Target("agent", A1), Action("set-group", None, {"groups": [name]}))]
            )
            assert ids(await stores.commands.claim([A1])) == [name]
        await stores.database.write(_without_turn)
        if noted:
            await stores.commands.mark_sent(["second"])
        await stores.commands.report([CommandReport(A1, "first", CommandResult(0, "done"))])
        assert await _groups(stores) == ("first",)  # as it comes
        await stores.commands.mark_sent(["second"])
        assert await _groups(stores) == (("first",) if noted else ("second",))


def _without_turn(connection: apsw.Connection) -> None:
    connection.execute("UPDATE commands SET group_turn = NULL WHERE id = 'first'")


async def _groups(stores: SqliteStores) -> Sequence[str]:
    found = await stores.agents.get(A1)
    assert found is not None
    return found.groups


async def claimed_beside_add(stores: SqliteStores, *, turns: int) -> list[str]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stores.commands.add, [command("new")])
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        return ids(await stores.commands.claim([A1]))


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_claim_beside_it_has_what_came_before_it_too(tmp_path: Path, turns: int) -> None:
    async with open_sqlite(tmp_path, wall_clock=lambda: 1000.0) as stores:
        await stores.commands.add([command("old")])
        found = await claimed_beside_add(stores, turns=turns)
        found += ids(await stores.commands.claim([A1]))
        assert found == ["old", "new"]


async def test_of_one_that_is_given_up_nothing_stays(tmp_path: Path) -> None:
    """Later claims look first again, which costs no commit."""
    async with open_sqlite(tmp_path, wall_clock=lambda: 1000.0) as stores:
        with trio.CancelScope() as given_up:
            given_up.cancel()
            await stores.commands.add([command("given up")])
        assert given_up.cancelled_caught
        before = stores.database.commits
        assert ids(await stores.commands.claim([A1])) == []
        assert stores.database.commits == before
