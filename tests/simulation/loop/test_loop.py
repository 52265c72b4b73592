"""What is replaced of trio's loop changes nothing for tasks: a program made up from a number does the same, step by
step, with it and without."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf, nan
from random import Random

import pytest
import trio
import trio.testing

from tests.simulation import loop
from tests.simulation.loop import scopes, sleeping
from tests.simulation.loop.turns import wakings

SleepUntil = Callable[[float], Awaitable[None]]
sleepers = pytest.mark.parametrize("sleep_until", [trio.sleep_until, sleeping.sleep_until], ids=["trio's", "ours"])


def on_mock_clock(main: Callable[[], Awaitable[object]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@sleepers
def test_a_sleep_ends_at_its_time(sleep_until: SleepUntil) -> None:
    async def main() -> None:
        for deadline in (0.5, 2.0, 2.0, 1.0):
            await sleep_until(deadline)
            ends.append(trio.current_time())

    ends: list[float] = []
    on_mock_clock(main)
    assert ends == [0.5, 2.0, 2.0, 2.0]


@sleepers
def test_a_sleep_without_end_is_cancelled(sleep_until: SleepUntil) -> None:
    async def main() -> None:
        with trio.move_on_after(3) as scope:
            await sleep_until(inf)
        assert scope.cancelled_caught
        assert trio.current_time() == 3

    on_mock_clock(main)


@sleepers
@pytest.mark.parametrize("seconds", [1.0, 2.0])
def test_who_is_cancelled_when_its_time_comes_is_cancelled(sleep_until: SleepUntil, seconds: float) -> None:
    async def main() -> None:
        with trio.move_on_at(seconds) as scope:
            await sleep_until(2.0)
        assert scope.cancelled_caught
        assert trio.current_time() == seconds
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == inf  # nothing is left of it

    on_mock_clock(main)


@sleepers
def test_a_time_that_is_past_is_a_checkpoint_and_none_is_an_error(sleep_until: SleepUntil) -> None:
    async def main() -> None:
        await trio.sleep(5)
        with trio.testing.assert_checkpoints():
            await sleep_until(1.0)
        assert trio.current_time() == 5
        with pytest.raises(ValueError, match="NaN"):
            await sleep_until(nan)

    on_mock_clock(main)


def test_a_scope_has_its_deadline_until_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with trio.CancelScope(deadline=5) as scope:
            assert trio.lowlevel.current_statistics().seconds_to_next_deadline == 5
            scope.deadline = 7
            await trio.lowlevel.checkpoint()
            assert trio.lowlevel.current_statistics().seconds_to_next_deadline == 7
            scope.cancel()
            assert trio.lowlevel.current_statistics().seconds_to_next_deadline == inf

    for module, name, replacement in scopes.REPLACEMENTS:
        monkeypatch.setattr(module, name, replacement)
    on_mock_clock(main)


def story(seed: int) -> list[str]:
    """What a program does that is made up from this number: tasks sleep, wait with limits, set them anew, cancel
    one another, and wait for one another."""
    rng, lines = Random(seed), list[str]()

    async def work(name: str, depth: int) -> None:
        with trio.CancelScope(shield=rng.random() < 0.1) as own:
            own_scopes.append(own)
            for _ in range(rng.randrange(1, 6)):
                kind = rng.randrange(13)
                moment = rng.randrange(6) / 2
                lines.append(f"{trio.current_time()} {name} {kind} {moment}")
                if kind == 0:
                    await trio.sleep(moment)
                elif kind == 1:
                    await trio.sleep_until(moment * 3)
                elif kind == 2 and depth:
                    with trio.move_on_after(moment) as limit:
                        await work(f"{name}.", depth - 1)
                    lines.append(f"{trio.current_time()} {name} {limit.cancelled_caught}")
                elif kind == 3 and depth:
                    async with trio.open_nursery() as nursery:
                        for each in range(3):
                            nursery.start_soon(work, f"{name}{each}", depth - 1)
                elif kind == 4:
                    rng.choice(own_scopes).cancel()
                elif kind == 5:
                    own.deadline = trio.current_time() + moment
                elif kind == 6:
                    with trio.move_on_after(moment):
                        await lot.park()
                elif kind == 7:
                    lines.append(f"{name} wakes {len(lot.unpark_all())}")
                elif kind == 8 and depth:
                    try:
                        with trio.fail_after(moment, shield=rng.random() < 0.1):
                            await work(f"{name}!", depth - 1)
                    except trio.TooSlowError:
                        lines.append(f"{trio.current_time()} {name} is too slow")
                elif kind == 9 and depth:
                    try:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(work, f"{name}?", depth - 1)
                            await trio.sleep(moment)
                            raise KeyError(name)
                    except* KeyError as errors:
                        lines.append(f"{trio.current_time()} {name} fails {errors.exceptions}")
                elif kind == 10:
                    sent = await send.send(name)  # there is room
                    lines.append(f"{trio.current_time()} {name} sends {sent}")
                elif kind == 11:
                    with trio.move_on_after(moment):
                        lines.append(f"{trio.current_time()} {name} has {await receive.receive()}")
                else:
                    await trio.lowlevel.checkpoint()
        lines.append(f"{trio.current_time()} {name} ends {own.cancelled_caught}")

    async def main() -> None:
        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:
                for each in range(4):
                    nursery.start_soon(work, f"{each}", 3)
        assert trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines._active == 0

    own_scopes: list[trio.CancelScope] = []
    send, receive = trio.open_memory_channel[str](1000)
    lot = trio.lowlevel.ParkingLot()
    trio._core._run._r.seed(seed)
    on_mock_clock(main)
    return lines


def test_programs_do_the_same_with_it_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio._core._run, "_r", Random())
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    without = [story(seed) for seed in range(200)]
    assert without == [story(seed) for seed in range(200)]
    assert sum(map(len, without)) > 5000
    for module, name, replacement in loop.REPLACEMENTS:
        monkeypatch.setattr(module, name, replacement)
    assert [story(seed) for seed in range(200)] == without
    pair = trio._core._wakeup_socketpair.WakeupSocketpair
    for name in ("wakeup_thread_and_signal_safe", "drain"):
        monkeypatch.setattr(pair, name, getattr(pair, name))
    monkeypatch.setattr(wakings, "_is_told", False)
    wakings.install()
    assert [story(seed) for seed in range(200)] == without
