"""A restart with another key refuses no token that is still good: no 403, and nobody logs in again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.e2e.processes import Files, start_daemon
from tests.keys.load import Nodes, at_work, keys_in_force, logged_in
from tests.supervisor.nodes import ask, change, parked
from tests.supervisor.test_reload import new_certificate
from wazuh_comms_trio.daemon.remembered_keys import FILE_NAME
from wazuh_comms_trio.testing import stateful_event

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

MakeFiles = Callable[..., Files]


@pytest.mark.parametrize("workers", [1, 2])
async def test_restarts_with_new_tls_keys_under_load(make_files: MakeFiles, workers: int) -> None:
    files, nodes = make_files(workers=workers), Nodes()
    async with start_daemon(files) as daemon:
        nodes.ports = [daemon.port]
        agents = await logged_in(daemon, nodes, 3)
        first = (await keys_in_force(files))["signing"]
        async with at_work(agents) as work:
            await work.more(10)
            nodes.ports = []
            change(files, ssl=new_certificate(files.folder))
            daemon.process.terminate()
            assert await daemon.process.wait() == 0
            for _ in range(3 - workers):  # a second restart finds the same key again
                async with start_daemon(files) as again:
                    nodes.ports = [again.port]
                    await work.more(20)
                    keys = await keys_in_force(files)
                    assert keys["signing"] != first
                    assert keys["accepted"] == [keys["signing"], first]
                    nodes.ports = []
    assert work.refused == []
    assert "PRIVATE" not in (files.state / FILE_NAME).read_text()
    assert (files.state / FILE_NAME).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("workers", "text"), [(1, "{"), (2, '{"signing": "no key", "earlier": [{"public_key": "x", "until": 1e12}]}')]
)
async def test_a_file_that_is_spoilt_costs_log_ins_and_nothing_else(
    make_files: MakeFiles, workers: int, text: str
) -> None:
    files, nodes = make_files(workers=workers), Nodes()
    files.state.mkdir()
    (files.state / FILE_NAME).write_text(text)
    async with start_daemon(files) as daemon:
        nodes.ports = [daemon.port]
        (agent,) = await logged_in(daemon, nodes, 1)
        assert (await agent.post_stateful([stateful_event("a", "fim", "create", {"a": 1})])).status == 200
        assert await daemon.wait_for_line(r"WARNING.*(token-keys\.json isn't understood|key that signed before isn't)")


async def test_a_revoked_key_ends_parked_polls_and_stays_revoked(make_files: MakeFiles) -> None:
    files, nodes = make_files(workers=2), Nodes()
    async with start_daemon(files) as daemon:
        nodes.ports = [daemon.port]
        (agent,) = await logged_in(daemon, nodes, 1)
        before = (await keys_in_force(files))["signing"]
    change(files, ssl=new_certificate(files.folder))
    async with start_daemon(files) as daemon:
        nodes.ports = [daemon.port]
        replies = []

        async def poll() -> None:
            replies.append((await agent.poll()).status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            await parked(files, 1)
            with trio.fail_after(10):
                reply = await ask(files, "POST", f"/api/v1/keys/revoke?key={before}")
                assert reply.json() == {"revoked": True, "kept": True}
                while not replies:  # noqa: ASYNC110
                    await trio.sleep(0.02)
        assert replies == [408]
        assert (await agent.poll()).status == 403
        assert (await ask(files, "POST", "/api/v1/keys/revoke?key=x")).status == 400
    async with start_daemon(files) as daemon:
        nodes.ports = [daemon.port]
        assert (await keys_in_force(files))["revoked"] == [before]
        assert (await agent.get_file("none.conf")).status == 403
