"""Every embedded store on a disk that fills up and is given room again."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.backends.embedded.notes import complaints
from tests.backends.embedded.small_disk import fill, small_disk
from tests.contract.harness import A1, A2, INDEX, embedded_config, stored_bodies, until_it_works
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, DocumentOperation, Target
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.quarantine.interface import Rejected
from wazuh_comms_trio.quarantine.opening import open_quarantine

pytestmark = [pytest.mark.real_clock, pytest.mark.expects_errors]

BODY = b'{"agent":{}}\n{"m":1}\n{"d":"%b"}\n' % (b"x" * 5000)


async def pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def again_and_again(write: Callable[[], Awaitable[None]]) -> None:
    """The first ones may still fit into what the files have to themselves."""
    for _ in range(500):
        await write()


async def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        config = embedded_config(disk)
        async with open_backends(config) as backends, open_quarantine(config) as quarantine:
            await backends.agents.add(Agent(A1, "a", "hash"))
            agent = await backends.agents.lookup(A1)
            await backends.commands.add([Command("c1", Target("agent", A1), Action("restart"))])
            number = 0
            kept: list[str] = []

            async def index() -> None:
                nonlocal number
                number += 1
                body = b'{"n":"%b"}' % (b"x" * 20_000)
                (result,) = await backends.events.bulk([DocumentOperation("create", INDEX, str(number), body)])
                assert result.status == 201
                kept.append(str(number))

            async def send() -> None:
                async with aclosing(pieces(BODY)) as chunks:
                    await backends.engine.send_events(chunks, agent_id=A1, length=len(BODY))

            async def reject() -> None:
                await quarantine.add([Rejected(A1, "stateful", f"{number}", b"", b"%d" % number * 5000)])

            for write in (index, send, reject):
                await write()
            for _ in range(3):  # filled, freed, and again
                ballast = fill(disk)
                for write in (index, send, reject, index, send, reject):
                    with pytest.raises(BackendUnavailable):
                        await again_and_again(write)
                assert await backends.agents.lookup(A1) == agent  # tokens are checked all the same
                assert await backends.agents.get(A1) is not None
                await backends.agents.record_login(A1, 5.0)
                ballast.unlink()
                for write in (index, send, reject):
                    await until_it_works(write)
            await backends.agents.add(Agent(A2, "b", "hash"))
            assert [command.document_id for command in await backends.commands.claim([A1])] == ["c1"]
            for document_id in kept:
                assert await backends.events.get(INDEX, document_id) is not None
        assert {body for _, body in stored_bodies(config.communications_api.embedded.path)} == {BODY}
        lines = complaints(caplog)
        assert len(lines) <= 6, lines
        assert all("disk" in line for line in lines), lines
