"""One run from its beginning to its end: what ends it, and what it says of itself."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import trio
import trio.testing
from attrs import define

from tests.simulation.checks import service as checks
from tests.simulation.loop.inline import use_inline
from tests.simulation.nodes.versions import use_versions
from tests.simulation.plans.faults import CALLS, DISK, HANGS, INDEXER, NODES, POWER, REFUSING, STARTS, STOPPED, TOLD
from tests.simulation.plans.plan import Plan
from tests.simulation.stores.engine import use_simulated_engine
from tests.simulation.stores.idle_connections import use_memory_streams
from tests.simulation.stores.scratch import own_folder
from tests.simulation.trace import Trace, Violation
from tests.simulation.world import World
from wazuh_comms_trio.services.authentication import secret_hashes

__all__ = ["Result", "prepare", "run_world"]

#: A run takes less than a second of a core, as a rule.
CORE_SECONDS = 20.0
#: What is said when something has happened that is a fault's doing, and the kinds of which one has then been there.
CAUSED = (
    (re.compile("the supervisor is gone"), ("cut link", "kill node", *POWER)),
    (re.compile("the command store couldn't be told what was delivered"), (*CALLS, *DISK, *INDEXER)),
    (re.compile(r"worker \S+ hangs"), (*HANGS, "cut link")),
    (re.compile(r"worker \S+ doesn't end"), (*HANGS, "hang", "slow")),
    (re.compile(r"worker \S+ didn't get ready"), (*HANGS, "hang", "slow", *NODES, *REFUSING)),
    (
        re.compile(r"worker \S+ ended with SIGKILL"),
        ("kill worker", "die", "start dies", "cut link", *HANGS, "hang", "slow"),
    ),
    (re.compile(r"worker \S+ ended with status 0"), ("cut link", *STOPPED, *TOLD)),
    (re.compile(r"worker \S+ ended with"), ("start fails", "cut link", *CALLS, *DISK, *INDEXER)),
    (re.compile("not reloaded:"), (*STARTS, *HANGS, *CALLS, *DISK, *INDEXER, "kill worker")),
)
#: Why it doesn't reload, whatever faults there are.
REFUSALS = ("not reloaded: A reload is under way", "not reloaded: The daemon is stopping")

DISK_ERRORS = ("the disk reports errors", "the disk is full", "can't write to", "can't use")


#: Ctrl-C, also where it came to nothing: in a callback, or while garbage is collected.
_interrupted: list[bool] = []


class _Errors(logging.Handler):
    """An unexpected ERROR fails the run; what a dead process logs, nobody reads."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        world, process = self._world, self._world.process.get()
        text = record.getMessage()
        if (process is not None and process.dead) or text in REFUSALS:
            return
        kinds = next((kinds for pattern, kinds in CAUSED if pattern.match(text)), ())
        if kinds and world.had_cause(60.0, kinds):
            return
        if any(words in text for words in DISK_ERRORS) and world.had_cause(60.0, DISK):
            return
        if "the quota is reached" in text and world.plan.features.small_events and world.event_quota.is_reached:
            return
        if "its log is damaged" in text and world.had_cause(60.0, (*POWER, *DISK)):
            return
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        self.found.append(f"{record.name}: {text}")
        world.trace.add("log", text)


@define
class Result:
    plan: Plan
    trace: Trace
    requests: int
    seconds: float
    violation: Violation | None


def run_world(plan: Plan) -> Result:
    """One run from its beginning to its end."""
    worlds: list[World] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(plan, nursery)
            worlds.append(world)
            errors = _Errors(world)
            logging.getLogger().addHandler(errors)
            try:
                with trio.fail_after(3600):
                    await world.run()
            finally:
                logging.getLogger().removeHandler(errors)
            nursery.cancel_scope.cancel()
            if errors.found:
                raise Violation("log", errors.found[0])

    if _interrupted:
        raise KeyboardInterrupt
    violation: Violation | None = None
    before = open_files()
    try:
        with _limited(CORE_SECONDS):
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException as error:
        if _interrupted:
            raise KeyboardInterrupt from None
        if not worlds:
            raise
        violation = _violation_in(error)
        if violation is None:
            violation = Violation("exceptions", checks.shown(error))
    if _interrupted:
        raise KeyboardInterrupt
    world = worlds[0]
    if violation is None and (left := open_files() - before):
        violation = Violation("leaks", f"files are open after the end: {sorted(left)[:5]}")
    return Result(plan, world.trace, world.requests, checks.last_time(world), violation)


def open_files() -> set[tuple[str, str]]:
    """This process's: descriptor and what it leads to."""
    with os.scandir("/proc/self/fd") as entries:
        names = [entry.name for entry in entries]
    found = set()
    for name in names:
        with suppress(OSError):  # the one by which they were listed
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Of a core: a run in which something goes round and round is ended."""

    def end(*_: object) -> None:
        raise Violation("spins", f"no end within {seconds:.0f} s of a core")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def _interrupt(*_: object) -> None:
    _interrupted.append(True)
    raise KeyboardInterrupt


def _derive(key: str, salt: bytes) -> bytes:
    return hashlib.sha256(salt + key.encode("utf-8", "surrogatepass")).digest()


def _violation_in(error: BaseException) -> Violation | None:
    if isinstance(error, Violation):
        return error
    if isinstance(error, trio.TrioInternalError) and error.__cause__ is not None:
        return _violation_in(error.__cause__)
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            if (found := _violation_in(each)) is not None:
                return found
    return None


def prepare() -> None:
    """Once in a process. Deriving a key takes 12 ms, and nobody here tries to guess one. Threads aren't for the mock
    clock."""
    signal.signal(signal.SIGINT, _interrupt)
    own_folder()
    use_inline()
    use_memory_streams()
    use_simulated_engine()
    use_versions()
    secret_hashes._derive = _derive
    gc.collect()
    gc.freeze()  # what is there now stays: it needn't be looked at after every run
