"""What ``status`` says is what ``GET /api/v1/ready`` says, and its ages are no clock's that somebody sets."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.backends.embedded.small_disk import fill, small_disk
from tests.e2e.processes import Files, Running, start_daemon, tool
from tests.supervisor.nodes import POLL_INTERVAL, serving, status
from wazuh_comms_trio.testing import stateless_event

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

#: An answer may be a second old; unasked, the stores are looked at every ten.
AT_MOST = 5.0
BACK = -3600.0
#: Imported by every Python that starts with it: its wall clock, and no other, goes wrong by what a file says.
CLOCK = """
import time

_right = time.time

def _wrong():
    with open({file!r}) as file:
        return _right() + float(file.read())

time.time = _wrong
"""


async def ready_of(daemon: Running) -> int:
    reply = await daemon.client("01a2054b-6d7e-7c3b-ae8c-801744614b42", "k" * 32).request(
        "GET", "/api/v1/ready", authorised=False
    )
    return reply.status


async def backends(files: Files) -> set[str]:
    return {worker["backend"] for worker in (await status(files))["workers"]}


@pytest.mark.parametrize("workers", [1, 2])
async def test_status_and_ready_agree_on_a_full_disk(
    workers: int, make_files: Callable[..., Files], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        files = make_files(workers=workers, embedded={"path": str(disk / "state")})
        async with start_daemon(files, expect_errors=True) as daemon:
            await serving(files, workers)
            agent = await daemon.add_agent()
            assert (await agent.authenticate()).status == 200
            assert (await ready_of(daemon), await backends(files)) == (200, {"ready"})
            for _ in range(2):
                ballast = fill(disk)
                while (await agent.post_stateless([stateless_event("m", "c", {"n": "x" * 4096})])).status == 204:
                    await trio.lowlevel.checkpoint()
                with trio.fail_after(AT_MOST):
                    while await ready_of(daemon) == 200:  # noqa: ASYNC110
                        await trio.sleep(POLL_INTERVAL)
                assert await backends(files) != {"ready"}  # asked right after it
                with trio.fail_after(AT_MOST):  # also a worker that has tried no write
                    while "ready" in await backends(files):  # noqa: ASYNC110
                        await trio.sleep(POLL_INTERVAL)
                assert [await ready_of(daemon) for _ in range(4)] == [503] * 4
                ballast.unlink()
                with trio.fail_after(AT_MOST):
                    while await backends(files) != {"ready"}:  # noqa: ASYNC110
                        await trio.sleep(POLL_INTERVAL)
                assert [await ready_of(daemon) for _ in range(4)] == [200] * 4


@pytest.mark.parametrize("workers", [1, 2])
async def test_ages_after_the_clock_was_set_back(
    workers: int, make_files: Callable[..., Files], tmp_path: Path
) -> None:
    clock, site = tmp_path / "clock", tmp_path / "site"
    clock.write_text("0")
    site.mkdir()
    (site / "sitecustomize.py").write_text(CLOCK.format(file=os.fspath(clock)))
    files = make_files(workers=workers)
    async with start_daemon(files, environment={"PYTHONPATH": os.fspath(site)}):
        await serving(files, workers)
        (tmp_path / "back").write_text(str(BACK))
        (tmp_path / "back").replace(clock)  # at no moment is it empty for who reads it
        told = [sys.executable, "-c", "import time; print(time.time())"]
        shown = await trio.run_process(told, env={**os.environ, "PYTHONPATH": os.fspath(site)}, capture_stdout=True)
        assert float(shown.stdout) < time.time() + BACK / 2  # so much for the clock
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.fspath(site))
            document = await tool(files, "status")
        assert document["problems"] == []
        assert 0 <= document["up"] < 120
        assert len(document["workers"]) == workers
        for worker in document["workers"]:
            assert 0 <= worker["age"] <= document["up"]
            assert 0 <= worker["heard"] < 5
            assert 0 <= worker["lag"] < 5
