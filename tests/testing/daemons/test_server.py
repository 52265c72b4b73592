"""The fake daemons themselves: framing, conduct and oddities, in memory and over a socket file."""

from __future__ import annotations

import errno
import json
import socket
import struct
from pathlib import Path

import pytest
import trio

from wazuh_comms_trio.testing import (
    CONDUCTS,
    HEALTHY,
    Act,
    Answer,
    AuthdModel,
    Conduct,
    Frames,
    Oddities,
    Raw,
    ScriptExhausted,
    open_fake_daemon,
)


async def receive_frame(stream: trio.abc.Stream) -> bytes:
    """One frame's payload, b"" at the end."""
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack_from("<I", data)[0]:
        wanted = 4 if len(data) < 4 else 4 + struct.unpack_from("<I", data)[0]
        if not (more := await stream.receive_some(wanted - len(data))):
            return b""
        data += more
    return data[4:]


async def ask(stream: trio.abc.Stream, payload: bytes) -> bytes:
    await stream.send_all(struct.pack("<I", len(payload)) + payload)
    return await receive_frame(stream)


@pytest.fixture(params=["memory", "socket"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "socket" else None


async def test_script_over_all_connections(home: Path | None) -> None:
    async with open_fake_daemon("wazuh-db", ["ok", {"error": 0}, b"\xff"], home=home) as daemon:
        async with await daemon.connect() as stream:
            assert await ask(stream, b"one") == b"ok"
            assert await ask(stream, b"two\0") == b'{"error":0}'
        async with await daemon.connect() as stream:
            assert await ask(stream, b"three") == b"\xff"
        assert daemon.requests == [b"one", b"two\0", b"three"]
        assert daemon.connections == 2


async def test_pipelined_requests_are_answered_in_order(home: Path | None) -> None:
    async def answer(request: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return request[::-1]

    async with open_fake_daemon("wazuh-db", answer, home=home) as daemon, await daemon.connect() as stream:
        await stream.send_all(b"".join(struct.pack("<I", 2) + b"%02d" % number for number in range(20)))
        assert [await receive_frame(stream) for _ in range(20)] == [(b"%02d" % number)[::-1] for number in range(20)]


async def test_one_shot_daemon_closes_after_its_answer(home: Path | None) -> None:
    async with open_fake_daemon("authd", ["ok", "ok"], home=home) as daemon, await daemon.connect() as stream:
        assert await ask(stream, b"one") == b"ok"
        assert await stream.receive_some() == b""
        await daemon.wait_closed()


async def test_length_zero_is_a_disconnect(home: Path | None) -> None:
    async with open_fake_daemon("wazuh-db", [], home=home) as daemon, await daemon.connect() as stream:
        await stream.send_all(bytes(4))
        assert await stream.receive_some() == b""
        assert daemon.requests == []


async def test_oversized_request_takes_a_thread_out_of_service(home: Path | None) -> None:
    conduct = Conduct(threads=2, oversized_wedges=True)
    async with open_fake_daemon("wazuh-db", lambda request: "ok", home=home, conduct=conduct) as daemon:
        for lost in range(2):
            async with await daemon.connect() as stream:
                assert await ask(stream, b"still served") == b"ok"
            bad = await daemon.connect()
            await bad.send_all(struct.pack("<I", 65537))
            while daemon.lost_threads <= lost:
                await trio.testing.wait_all_tasks_blocked()
            await bad.aclose()
        async with await daemon.connect() as stream, trio.open_nursery() as nursery:
            nursery.start_soon(ask, stream, b"x")
            await daemon.wait_requests(3)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1, "nobody is left to answer"
            nursery.cancel_scope.cancel()


async def test_oversized_request_closes_the_others(home: Path | None) -> None:
    async with open_fake_daemon("remoted", [], home=home) as daemon, await daemon.connect() as stream:
        await stream.send_all(struct.pack("<I", 65537))
        assert await stream.receive_some() == b""
        assert daemon.lost_threads == 0


async def test_receive_timeout(autojump_clock: trio.testing.MockClock) -> None:
    async with open_fake_daemon("authd", ["ok"]) as daemon, await daemon.connect() as stream:
        begin = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - begin == pytest.approx(1.0)


async def test_a_silent_client_delays_the_others(autojump_clock: trio.testing.MockClock) -> None:
    async with open_fake_daemon("authd", ["ok"]) as daemon:
        silent = await daemon.connect()
        await daemon.wait_connections(1)
        begin = trio.current_time()
        async with await daemon.connect() as stream:
            assert await ask(stream, b"{}") == b"ok"
        assert trio.current_time() - begin == pytest.approx(1.0)
        await silent.aclose()


async def test_late_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_fake_daemon("wazuh-db", ["ok"], oddities=Oddities(answer_delay=30)) as daemon,
        await daemon.connect() as stream,
    ):
        assert await ask(stream, b"x") == b"ok"
        assert trio.current_time() >= 30


@pytest.mark.parametrize(
    ("oddities", "expected"),
    [
        (Oddities(trailing_nul=True, close_after=1), b"\x03\0\0\0ok\0"),
        (Oddities(cut_after=5), b"\x02\0\0\0o"),
        (Oddities(close_without_answer=True), b""),
        (Oddities(close_after=1), b"\x02\0\0\0ok"),
        (Oddities(announced_bytes=0, close_after=1), b"\0\0\0\0ok"),
        (Oddities(piece_bytes=1, close_after=1), b"\x02\0\0\0ok"),
    ],
)
async def test_oddities_on_the_wire(home: Path | None, oddities: Oddities, expected: bytes) -> None:
    async with (
        open_fake_daemon("wazuh-db", ["ok"], home=home, oddities=oddities) as daemon,
        await daemon.connect() as stream,
    ):
        await stream.send_all(b"\x01\0\0\0x")
        assert b"".join([chunk async for chunk in stream]) == expected


async def test_cut_frame_with_the_next_one_inside(home: Path | None) -> None:
    oddities = Oddities(cut_after=6, cut_closes=False)
    async with (
        open_fake_daemon("wazuh-db", ["abcdef", "x"], home=home, oddities=oddities) as daemon,
        await daemon.connect() as stream,
    ):
        await stream.send_all(b"\x01\0\0\0x" * 2)
        assert await receive_frame(stream) == b"ab" + b"\x01\0\0\0"


async def test_raw_frames_and_large_answers(home: Path | None) -> None:
    answers: list[Answer] = [Raw(b"\xff\xff\xff\xff"), Frames(["due 1", "ok"]), b"x" * 152_000]
    async with (
        open_fake_daemon("task-manager", answers, home=home, conduct=Conduct()) as daemon,
        await daemon.connect() as stream,
    ):
        await stream.send_all(b"\x01\0\0\0x")
        assert await stream.receive_some(4) == b"\xff\xff\xff\xff"
        assert await ask(stream, b"x") == b"due 1"
        assert await receive_frame(stream) == b"ok"
        assert await ask(stream, b"x") == b"x" * 152_000


async def test_wazuh_db_cuts_its_answers(home: Path | None) -> None:
    async with open_fake_daemon("wazuh-db", [b"y" * 70_000], home=home) as daemon, await daemon.connect() as stream:
        assert await ask(stream, b"x") == b"y" * 65536


async def test_full_backlog(home: Path | None) -> None:
    async with open_fake_daemon("authd", ["ok"], home=home, oddities=Oddities(accepting=False, backlog=0)) as daemon:
        waiting = await daemon.connect()
        if daemon.path is None:
            with pytest.raises(BlockingIOError):
                await daemon.connect()
        else:
            with socket.socket(socket.AF_UNIX) as late:
                late.setblocking(False)
                assert late.connect_ex(str(daemon.path)) == errno.EAGAIN
        daemon.set_oddities(accepting=True)
        assert await ask(waiting, b"x") == b"ok"
        await waiting.aclose()


async def test_accepting_can_be_stopped_while_waiting(home: Path | None) -> None:
    async with open_fake_daemon("wazuh-db", ["ok"], home=home) as daemon:
        await trio.testing.wait_all_tasks_blocked()
        daemon.set_oddities(accepting=False)
        async with await daemon.connect() as stream:
            await trio.testing.wait_all_tasks_blocked()
            assert daemon.connections == 0
            daemon.set_oddities(accepting=True)
            assert await ask(stream, b"x") == b"ok"


async def test_crash_refuses_new_connections(home: Path | None) -> None:
    async with open_fake_daemon("authd", AuthdModel(), home=home) as daemon:
        async with await daemon.connect() as stream:
            request = json.dumps({"function": "remove", "arguments": {"id": 1}}).encode()
            assert await ask(stream, request) == b""
        assert daemon.crashed
        with pytest.raises(ConnectionRefusedError):
            await daemon.connect()


async def test_restart_closes_connections(home: Path | None) -> None:
    async with open_fake_daemon("wazuh-db", ["ok"], home=home) as daemon:
        async with await daemon.connect() as stream:
            await daemon.wait_connections(1)
            await daemon.close_connections()
            assert await stream.receive_some() == b""
        async with await daemon.connect() as stream:
            assert await ask(stream, b"x") == b"ok"


async def test_silence_keeps_the_connection(home: Path | None) -> None:
    async with open_fake_daemon("authd", [Act.SILENCE, "ok"], home=home) as daemon, await daemon.connect() as stream:
        await stream.send_all(b"\x01\0\0\0x")
        await daemon.wait_requests(1)
        assert daemon.open_connections == 1
        assert await ask(stream, b"y") == b"ok"


async def test_streamed_answer_to_a_slow_reader_is_cut(tmp_path: Path) -> None:
    # The kernel's buffer fills, the daemon loses patience and what did not fit is lost inside a frame.
    conduct = Conduct(streamed_send_timeout=0.01)
    rows = ["due " + "x" * 60_000] * 20 + ["ok"]
    async with (
        open_fake_daemon("wazuh-db", [Frames(rows, streamed=True)], home=tmp_path, conduct=conduct) as daemon,
        await daemon.connect() as stream,
    ):
        await stream.send_all(b"\x01\0\0\0x")
        await daemon.wait_answers(1)
        await daemon.close_connections()
        data = b"".join([chunk async for chunk in stream])
        assert 0 < len(data) < sum(len(row) + 4 for row in rows)


async def test_script_that_ends_too_early_is_loud() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_fake_daemon("wazuh-db", []) as daemon, await daemon.connect() as stream:
            await ask(stream, b"x")
    assert caught.value.subgroup(ScriptExhausted) is not None


async def test_paths(tmp_path: Path) -> None:
    async with open_fake_daemon("wazuh-db", [], home=tmp_path) as daemon:
        assert daemon.path == tmp_path / "queue/db/wdb"
        assert daemon.path.is_socket()
        assert daemon.path.stat().st_mode & 0o777 == 0o660
    assert not daemon.path.exists()
    async with open_fake_daemon("wazuh-db", [], home=tmp_path, other_release=True) as daemon:
        assert daemon.path == tmp_path / "queue/sockets/wdb"
    async with open_fake_daemon("mine", [], path=tmp_path / "here") as daemon:
        assert daemon.path == tmp_path / "here"


def test_conducts_say_which_daemon_may_be_asked_twice() -> None:
    assert {name for name, conduct in CONDUCTS.items() if not conduct.one_shot} == {"wazuh-db"}
    assert Oddities() == HEALTHY


async def test_a_script_is_no_single_answer() -> None:
    with pytest.raises(TypeError, match="a sequence of answers"):
        async with open_fake_daemon("wazuh-db", "ok"):
            pass
