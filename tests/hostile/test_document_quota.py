"""One agent that fills the state index: it keeps what isn't taken, the others hardly notice, and the file's sums stay
right."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trio
import yaml
from trio.testing import MockClock

from tests.conftest import Certificates
from tests.e2e.agents import logged_in
from tests.e2e.processes import Files, start_daemon, write_files
from tests.services.bench import body, event, open_stateful, results
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backup.verify import verify
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.errors import StorageFull
from wazuh_comms_trio.testing import AgentClient, stateful_event

FULL = ItemResult(507, "the quota is used up", Outcome.FULL)


async def test_a_packet_without_room_is_refused_at_once_and_whole(autojump_clock: MockClock) -> None:
    """A 2xx would end it at its agent. What could be done of it is done: it makes room for the rest."""
    async with open_stateful() as stateful:
        bulk = stateful.backends.events.bulk

        async def some(operations: Sequence[DocumentOperation], **options: object) -> list[ItemResult]:
            fits = [not one.document_id.endswith("e2") for one in operations]
            done = iter(await bulk([one for one, does in zip(operations, fits, strict=True) if does]))
            return [next(done) if does else FULL for does in fits]

        stateful.backends.events.bulk = some  # type: ignore[method-assign]
        with pytest.raises(StorageFull, match="the quota is used up"):
            await stateful.submit(body(event("e1"), event("e2"), event("e3")))
        assert trio.current_time() < 0.5
        stateful.backends.events.bulk = bulk  # type: ignore[method-assign]
        again = results(await stateful.submit(body(event("e1"), event("e3"))))
        assert again == [("e1", 200), ("e3", 200)]


def create(number: int, length: int = 1000, operation: str = "create") -> bytes:
    data = {} if operation == "delete" else {"file": {"path": "x" * length}}
    return stateful_event(f"id{number}", "fim", operation, data)


def with_quota(files: Files, max_bytes: int) -> None:
    config = yaml.safe_load(files.config.read_text())
    config["communications_api"]["embedded"]["documents"] = {"max_bytes": max_bytes, "agent_percent": 50}
    files.config.write_text(yaml.safe_dump(config))


async def post(agent: AgentClient, *events: bytes) -> int:
    return (await agent.post_stateful(events)).status


@pytest.mark.processes
@pytest.mark.real_clock
async def test_a_daemon_with_a_quota_and_without(tmp_path: Path, certificates: Certificates) -> None:
    files = write_files(tmp_path, certificates.cert, certificates.key)
    async with start_daemon(files) as daemon:
        thief, honest = await logged_in(daemon), await logged_in(daemon)
        assert await post(thief, create(0), create(1), create(2)) == 200
    with_quota(files, 40_000)
    async with start_daemon(files) as daemon:
        await counted(files)
        thief, honest = [daemon.client(each.uuid, each.key) for each in (thief, honest)]
        assert [(await each.authenticate()).status for each in (thief, honest)] == [200, 200]
        answers = [await post(thief, create(number)) for number in range(3, 30)]
        assert answers == sorted(answers)
        taken = answers.count(200)
        assert set(answers[taken:]) == {503}
        assert 8 <= taken < 14  # 20 000 bytes, three before
        assert await post(honest, create(1), create(2)) == 200
        line = await daemon.wait_for_line("has used up its share")
        assert thief.uuid in line
        # What is deleted is deleted, although the rest of its batch finds no room, and then there is some.
        assert await post(thief, create(90, 3000), create(0, operation="delete"), create(1, operation="delete")) == 503
        assert await post(thief, create(91)) == 200
        assert [each for each in verify(load_config(files.config).config) if each.place == "state.db"] == []
    with_quota(files, 0)
    async with start_daemon(files) as daemon:
        thief = daemon.client(thief.uuid, thief.key)
        assert (await thief.authenticate()).status == 200
        assert await post(thief, *(create(number) for number in range(30))) == 200


async def counted(files: Files) -> None:
    """Returns once all that was there is counted; nothing tells from outside."""
    query = "SELECT (SELECT count(*) FROM document_usage), (SELECT count(*) FROM counters WHERE name = ?)"
    with trio.fail_after(20), closing(sqlite3.connect(files.state / "state.db")) as connection:
        while connection.execute(query, ("documents_counted",)).fetchone() != (1, 0):  # noqa: ASYNC110
            await trio.sleep(0.05)
