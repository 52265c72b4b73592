"""Memory of large bodies goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from wazuh_comms_trio.daemon.worker.allocator import return_large_blocks

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

if sys.argv[1] == "set":
    assert return_large_blocks()
bytes(30_000_000)  # freed, it raises glibc's threshold
before = resident()
kept, bodies = [], []
for _ in range(100):
    bodies.append(b"x" * 1_000_000)
    kept.append(b"y" * 100_000)  # what lives on between them
del bodies
print(resident() - before)
"""


@pytest.mark.processes
def test_large_blocks_are_given_back() -> None:
    def grown(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True, timeout=60
        )
        return int(done.stdout)

    assert grown("set") < 25_000_000
    assert grown("unset") > 80_000_000  # else there is nothing to be set


SMALL = """
import trio
from trio.testing import MockClock
from wazuh_comms_trio.daemon.worker.allocator import return_free_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(return_free_memory, inline)
        before = resident()
        kept, blocks = [], []
        for _ in range(2000):
            blocks.append(b"x" * 50_000)
            kept.append(bytearray(1_000))  # what lives on between them
        del blocks
        await trio.sleep(9)
        full = resident() - before
        await trio.sleep(2)
        print(full, resident() - before)
        nursery.cancel_scope.cancel()

async def inline(fn, *args):
    await trio.lowlevel.checkpoint()
    return fn(*args)

trio.run(main, clock=MockClock(autojump_threshold=0))
"""


@pytest.mark.processes
def test_what_is_free_between_small_blocks_is_given_back_every_ten_seconds() -> None:
    done = subprocess.run([sys.executable, "-c", SMALL], capture_output=True, text=True, check=True, timeout=60)
    full, after = map(int, done.stdout.split())
    assert full > 80_000_000  # else there is nothing to be given back
    assert after < 25_000_000
