"""``GET /api/v1/ready``: for load balancers, without a token."""

from __future__ import annotations

import logging
from pathlib import Path

import apsw
import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.backends.embedded.ndjson.engine import open_engine
from wazuh_comms_trio.backends.embedded.stores import open_sqlite
from wazuh_comms_trio.config.models import EmbeddedEvents
from wazuh_comms_trio.errors import BackendUnavailable, StorageFull
from wazuh_comms_trio.testing.node.daemon import Daemon, open_daemon


async def ready(daemon: Daemon, method: str = "GET", path: str = "/api/v1/ready") -> tuple[int, bytes]:
    reply = await daemon.client("01a2054b-6d7e-7c3b-ae8c-801744614b42").request(method, path, authorised=False)
    return reply.status, reply.body


async def test_it_is_200_only_while_events_are_taken(autojump_clock: MockClock) -> None:
    async with open_daemon() as daemon:
        assert await ready(daemon) == (200, b"")
        assert await ready(daemon, "HEAD") == (200, b"")
        assert (await ready(daemon, "POST"))[0] == 405
        daemon.backends.engine.faults.error = StorageFull()
        await trio.sleep(1.1)
        assert await ready(daemon) == (503, b'{"message":"engine: The storage is full","code":503}')
        daemon.backends.engine.faults.error = None
        daemon.backends.events.faults.probe_error = BackendUnavailable("away")
        await trio.sleep(1.1)
        assert await ready(daemon) == (503, b'{"message":"index: away","code":503}')
        alive = await daemon.client("01a2054b-6d7e-7c3b-ae8c-801744614b42").alive()
        assert alive.status == 200  # which is another question
        assert await ready(daemon, path="/api/v1/ready/any") == (200, b"")  # the engine takes what it gets
        assert (await ready(daemon, "HEAD", "/api/v1/ready/any"))[0] == 200
        daemon.backends.engine.faults.error = StorageFull()
        await trio.sleep(1.1)
        both = b'{"message":"index: away; engine: The storage is full","code":503}'
        assert await ready(daemon, path="/api/v1/ready/any") == (503, both)
        daemon.backends.engine.faults.error = None
        daemon.backends.events.faults.probe_error = None
        await trio.sleep(1.1)
        assert await ready(daemon) == (200, b"")


@pytest.mark.real_clock
@pytest.mark.expects_errors
async def test_probes_of_embedded_stores(tmp_path: Path) -> None:
    limits = EmbeddedEvents(max_file_bytes=10_000, max_bytes=20_000)
    async with open_sqlite(tmp_path) as stores, open_engine(tmp_path / "events", limits) as engine:
        await stores.events.probe()
        await engine.probe()
        versions = apsw.Connection(str(tmp_path / "state.db"))
        before = versions.execute("PRAGMA data_version").fetchone()
        for _ in range(5):
            await stores.events.probe()
        assert versions.execute("PRAGMA data_version").fetchone() == before  # nothing was written
        versions.close()

        filler = tmp_path / "events" / "0-0-0.ndjson"
        filler.write_bytes(b"x" * 30_000)
        with pytest.raises(BackendUnavailable, match="the quota is reached"):
            await engine.probe()
        filler.unlink()
        await engine.probe()
        assert not engine.outage.failing

        (tmp_path / "events").rename(tmp_path / "away")
        engine.outage.failed("to a folder that is gone", kind="can't write", level=logging.ERROR)
        with pytest.raises(BackendUnavailable) as caught:
            await engine.probe()
        assert str(tmp_path) not in str(caught.value)
        (tmp_path / "away").rename(tmp_path / "events")
        await engine.probe()

        other = apsw.Connection(str(tmp_path / "state.db"))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailable, match="locked by another program"):
            await stores.events.probe()
        other.execute("ROLLBACK")
        other.close()
        await stores.events.probe()
