"""The fake datagram readers: as strict as the real ones, but they tell."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import WazuhInternalError
from wazuh_comms_trio.testing import ArMessage, EventMessage, FakeQueue, open_fake_queue
from wazuh_comms_trio.testing.daemons.queues import Malformed, read_ar, read_event, read_exec
from wazuh_comms_trio.wire.agent_command import create_wazuh_queue_socket_msg, encode_agent_command
from wazuh_comms_trio.wire.event import QUEUES, create_event_header, encode_event


def test_ar_messages() -> None:
    one = read_ar(b"(msg_to_agent) [] NNS 001 restart-ossec0 - null (from_the_server) (no_rule_id)")
    assert one == ArMessage("msg_to_agent", "NNS", "001", "restart-ossec0 - null (from_the_server) (no_rule_id)")
    assert (one.to_all, one.active_response) == (False, True)
    everybody = read_ar(b"(msg_to_agent) [] A!N (null) syscheck restart\0old bytes")
    assert (everybody.to_all, everybody.active_response, everybody.message) == (True, False, "syscheck restart")


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"x",
        b"(msg_to_agent) [] NNS 001",
        b"(msg_to_agent) [] NNS 001 ",
        b"(msg_to_agent) [] XXX 001 x",
        b"(msg_to_agent) [] NNS 1 x",
        b"msg_to_agent [] NNS 001 x",
        b"(msg_to_agent) [] NNS 001 " + b"x" * 65534,
        b"(msg_to_agent) [] NNS 0\0001 x",
    ],
)
def test_ar_messages_that_are_dropped(datagram: bytes) -> None:
    with pytest.raises(Malformed):
        read_ar(datagram)


@given(st.text(), st.text(), st.text())
def test_whatever_the_library_lets_out_is_read_as_it_was_meant(flag: str, agent_id: str, msg: str) -> None:
    try:
        datagram = create_wazuh_queue_socket_msg(flag, agent_id, msg).encode()
    except (WazuhInternalError, UnicodeEncodeError):
        return
    message = read_ar(datagram)
    assert (message.flags, message.agent_id, message.message) == (flag, agent_id, msg)


@given(st.from_regex(r"[0-9]{3,8}", fullmatch=True), st.text(min_size=1))
def test_active_responses_are_read_as_they_were_meant(agent_id: str, msg: str) -> None:
    try:
        command = encode_agent_command(msg, agent_id, "ar-message")
    except WazuhInternalError:
        return
    if agent_id != "000":
        message = read_ar(command.datagram)
        assert (message.agent_id, message.message) == (agent_id, msg)


@given(st.sampled_from(sorted(QUEUES)), st.text(min_size=1), st.text(min_size=1))
def test_events_are_read_as_they_were_meant(queue: str, location: str, msg: str) -> None:
    try:
        datagram = encode_event(create_event_header(queue, location), msg)
    except WazuhInternalError:
        return
    assert read_event(datagram) == EventMessage(queue, location, msg)


@pytest.mark.parametrize("datagram", [b"", b"1:", b"1:a", b"x:a:b", b"1:abc", b"1::b", b"12a:b", b"1|:a:b"])
def test_events_that_are_dropped(datagram: bytes) -> None:
    with pytest.raises(Malformed):
        read_event(datagram)


def test_events_are_cut() -> None:
    assert len(read_event(b"1:a:" + b"x" * 70_000).message) == 65531


def test_execd_messages() -> None:
    message = read_exec(b'{"version":1,"origin":{},"command":"x","parameters":{"extra_args":[]}}\0')
    assert (message.command, message.parameters) == ("x", {"extra_args": []})
    for datagram in (b"!x", b"[]", b'{"version":2}', b'{"version":1,"command":"x"}', b"{" + b" " * 65535 + b"}"):
        with pytest.raises(Malformed):
            read_exec(datagram)


async def test_over_a_socket_file(tmp_path: Path) -> None:
    async with open_fake_queue("ar", home=tmp_path) as queue:
        assert queue.path == tmp_path / "queue/alerts/ar"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(str(queue.path))
            sock.send(b"nonsense")
            sock.send(b"(msg_to_agent) [] ANN (null) x")
        await queue.wait_datagrams(2)
        assert [datagram for datagram, _ in queue.dropped] == [b"nonsense"]
        assert "not '(location)" in queue.dropped[0][1]
        assert len(queue.messages) == 1
        assert "1 messages, 1 dropped" in repr(queue)
    assert not queue.path.exists()


async def test_full_queue(tmp_path: Path) -> None:
    async with open_fake_queue("analysisd", path=tmp_path / "q", reading=False) as queue:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(str(queue.path))
            sent = fill(sock)
            assert 5 < sent < 1000
            queue.resume()
            await queue.wait_datagrams(sent)
            queue.pause()
            await trio.testing.wait_all_tasks_blocked()
            assert fill(sock) == sent
            queue.close()
            with pytest.raises(OSError, match=r"refused|reset"):
                sock.send(b"1:a:b")


def fill(sock: socket.socket) -> int:
    count = 0
    while True:
        try:
            sock.send(b"1:a:b")
        except BlockingIOError:
            return count
        count += 1


async def test_without_a_file() -> None:
    async with open_fake_queue("ar") as queue:
        with queue.connect() as sock:
            sock.send(b"(msg_to_agent) [] NNS 001 x")
            await queue.wait_datagrams(1)
        queue.deliver(b"bad")
        assert (len(queue.messages), len(queue.dropped)) == (1, 1)


async def test_a_failing_test_is_not_wrapped_into_a_group() -> None:
    async def fail() -> FakeQueue:
        async with open_fake_queue("ar") as queue:
            queue.messages[0]
        return queue

    with pytest.raises(IndexError):
        await fail()


async def test_where_each_release_has_its_queues(tmp_path: Path) -> None:
    for release, place in (
        ("4.7.5", "queue/alerts/ar"),
        ("5.0.0-beta1", "queue/alerts/ar"),
        ("5.0.0-beta2", "queue/sockets/ar"),
    ):
        async with open_fake_queue("ar", home=tmp_path, release=release) as queue:
            assert queue.path == tmp_path / place
    for name in ("ar", "execq", "analysisd"):
        with pytest.raises(LookupError, match="group G has no"):
            async with open_fake_queue(name, home=tmp_path, release="5.0.0"):
                pass


@pytest.mark.parametrize("name", ["arr", "", "queue", None])
async def test_no_such_queue(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known are ar, analysisd, execq"):
        async with open_fake_queue(name, home=tmp_path):  # type: ignore[arg-type]
            pass
    assert os.listdir(tmp_path) == []


async def test_what_is_cut_is_told() -> None:
    async with open_fake_queue("analysisd") as queue:
        queue.deliver(b"1:a:" + b"x" * 65531)
        assert queue.dropped == []
        queue.deliver(b"1:a:" + b"x" * 65532)
        assert (len(queue.messages), queue.dropped[0][1]) == (2, "cut: 65536 bytes, more than 65535")


async def test_what_no_agent_gets_is_told() -> None:
    async with open_fake_queue("ar") as queue:
        queue.deliver(b"(msg_to_agent) [] NNS 001 ".ljust(65349, b"x"))
        assert (len(queue.messages), queue.dropped) == (1, [])
        queue.deliver(b"(msg_to_agent) [] NNS 001 ".ljust(65350, b"x"))
        assert "doesn't reach an agent" in queue.dropped[0][1]
