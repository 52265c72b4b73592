"""Both orders of ``receive``, and what ``send`` and ``wazuh_sendasync`` return, for programs of either age.

One suite over the plain and the trio classes.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import termios
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio

from tests.transport.peers import Listening, frame
from wazuh_comms_trio.errors import DaemonRefusal, WazuhError
from wazuh_comms_trio.transport import (
    WazuhAsyncSocket,
    WazuhAsyncSocketJSON,
    WazuhSocket,
    WazuhSocketJSON,
    set_defaults,
    wazuh_sendasync,
)

ANSWER = {"error": 0, "message": "ok", "data": [1, 2]}
ORDERS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((4,), {}),
    (("<I",), {}),
    (("<I", 4), {}),
    ((4, "<I"), {}),
    ((), {"header_size": 4}),
    ((), {"header_format": "<I"}),
    ((), {"header_format": "<I", "header_size": 4}),
    ((4,), {"header_format": "<I"}),
    (("<I",), {"header_size": 4}),
]
RAW = [((None,), {}), ((None, None), {}), ((None, 4), {}), ((4, None), {}), (("<I", None), {}), ((None, "<I"), {})]
MIXED = [(4, 4), ("<I", "<I"), (4, 4, True), (True,), (b"<I",), ("<I", True), (4.0,), ("<I", "4")]

#: a class by name, and how one of its methods is called
Receive = Callable[..., Awaitable[Any]]


class Subject:
    """One of the four classes, connected to a peer."""

    def __init__(self, server: Listening, plain: bool, as_json: bool, api: str | None = None) -> None:
        self.server, self.plain, self.as_json, self.api = server, plain, as_json, api

    async def open(self) -> socket.socket:
        self.sock: Any
        if self.plain:
            self.sock = (WazuhSocketJSON if self.as_json else WazuhSocket)(self.server.path)
        else:
            kind = WazuhAsyncSocketJSON if self.as_json else WazuhAsyncSocket
            self.sock = await kind.from_path(self.server.path, api=self.api)
        return await trio.to_thread.run_sync(self.server.accept)

    async def call(self, method: str, *args: Any, **named: Any) -> Any:
        done = getattr(self.sock, method)(*args, **named)
        return done if self.plain else await done


@pytest.fixture(params=["plain", "trio"])
def plain(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "plain")


@pytest.fixture(params=["bytes", "json"])
def as_json(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "json")


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    yield
    set_defaults()


@pytest.mark.parametrize(("order", "named"), ORDERS)
async def test_both_orders(
    server: Listening, plain: bool, as_json: bool, order: tuple[Any, ...], named: dict[str, Any]
) -> None:
    subject = Subject(server, plain, as_json)
    peer = await subject.open()
    payload = json.dumps(ANSWER).encode()
    peer.sendall(frame(payload))
    assert await subject.call("receive", *order, **named) == (ANSWER["data"] if as_json else payload)
    await subject.call("close")


@pytest.mark.parametrize(("order", "named"), ORDERS)
async def test_an_answer_in_pieces_is_joined(
    server: Listening, plain: bool, order: tuple[Any, ...], named: dict[str, Any]
) -> None:
    subject = Subject(server, plain, False)
    peer = await subject.open()
    data = frame(b"answer")

    def drip() -> None:
        """A byte at a time, each after the one before has been read."""
        for one in data:
            peer.send(bytes([one]))
            while fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)) != bytes(4):
                os.sched_yield()

    thread = threading.Thread(target=drip)
    thread.start()
    assert await subject.call("receive", *order, **named) == b"answer"
    thread.join()
    await subject.call("close")


@pytest.mark.parametrize(("order", "named"), RAW)
async def test_none_means_bytes_as_they_come(
    server: Listening, plain: bool, order: tuple[Any, ...], named: dict[str, Any]
) -> None:
    subject = Subject(server, plain, False)
    peer = await subject.open()
    peer.sendall(b"no frame")
    assert await subject.call("receive", *order, **named) == b"no frame"
    await subject.call("close")


@pytest.mark.parametrize("order", MIXED)
async def test_mixed_orders_are_refused_by_name(
    server: Listening, plain: bool, as_json: bool, order: tuple[Any, ...]
) -> None:
    subject = Subject(server, plain, as_json)
    await subject.open()
    with pytest.raises(WazuhError, match=r"Error 1014 .*receive\(header_size, header_format\) or receive\(header_f"):
        await subject.call("receive", *order)
    await subject.call("close")


@pytest.mark.parametrize(("order", "named"), [((4,), {"header_size": 4}), ((), {"size": 4}), ((4, "<I", True, 1), {})])
async def test_what_no_call_has(server: Listening, plain: bool, order: tuple[Any, ...], named: dict[str, Any]) -> None:
    subject = Subject(server, plain, False)
    await subject.open()
    with pytest.raises(TypeError, match=r"receive\(\)"):
        await subject.call("receive", *order, **named)
    await subject.call("close")


@pytest.mark.parametrize("order", [(4, "<I", True), ("<I", 4, True)])
async def test_raw_in_both_orders(server: Listening, plain: bool, order: tuple[Any, ...]) -> None:
    subject = Subject(server, plain, True)
    peer = await subject.open()
    peer.sendall(frame(json.dumps(ANSWER).encode()) * 2)
    assert await subject.call("receive", *order) == ANSWER
    assert await subject.call("receive", raw=True) == ANSWER
    await subject.call("close")


@pytest.mark.parametrize(
    ("api", "counts"),
    [(None, False), ("4.7.5", False), ("4.14.1", False), ("4.14.2", True), ("5.0.0-beta1", True), ("5.0.0", True)],
)
async def test_what_a_send_returns(server: Listening, as_json: bool, api: str | None, counts: bool) -> None:
    message: Any = {"a": 1} if as_json else b"hello"
    sent = frame(b'{"a": 1}' if as_json else b"hello")
    expected = len(sent) if counts else sent
    for through_default in (False, True):
        if through_default:
            set_defaults(api=api)
        subject = Subject(server, False, as_json, None if through_default else api)
        peer = await subject.open()
        assert await subject.call("send", message) == expected
        assert peer.recv(100) == sent
        await subject.call("close")


@pytest.mark.parametrize(
    ("api", "raw", "decoded"),
    [
        (None, None, True),
        ("4.8.2", None, True),
        ("4.9.0", None, False),
        ("4.14.2", None, False),
        (None, True, False),
        ("4.14.2", False, True),
    ],
)
async def test_what_sendasync_returns(api: str | None, raw: bool | None, decoded: bool, home: Any) -> None:
    from wazuh_comms_trio.testing import open_fake_daemon

    async with open_fake_daemon("remoted", [ANSWER], home=home):
        answer = await wazuh_sendasync("remoted", {"command": "x"}, home=home, api=api, raw=raw)
    assert answer == ([1, 2] if decoded else json.dumps(ANSWER, separators=(",", ":")).encode())


async def test_a_raw_answer_may_be_an_error(home: Any) -> None:
    from wazuh_comms_trio.testing import open_fake_daemon

    async with open_fake_daemon("authd", [{"error": 9005, "message": "x"}], home=home):
        asked = {"function": "get", "arguments": {"id": "001"}}
        assert b"9005" in await wazuh_sendasync("authd", asked, home=home, raw=True)


ANSWERS: list[tuple[Any, Any]] = [
    ({"status": "ok", "task_id": "t"}, {"status": "ok", "task_id": "t"}),
    ({"status": "ok"}, {"status": "ok"}),
    ({"error": 0, "data": {"id": "001"}}, {"id": "001"}),
    ({"error": 1, "message": "due", "data": {"agents": [1]}}, {"agents": [1]}),
    ({"error": "parsing_error", "message": "no action"}, ("parsing_error", "no action")),
    ({"error": "create_failed"}, ("create_failed", None)),
]


@pytest.mark.parametrize(("answer", "expected"), ANSWERS)
@pytest.mark.parametrize("method", ["receive", "request"])
async def test_answers_of_every_release(
    server: Listening, plain: bool, method: str, answer: Any, expected: Any
) -> None:
    """An answer without ``error`` isn't lost, a word keeps its message, a page isn't an error."""
    subject = Subject(server, plain, True)
    peer = await subject.open()
    peer.sendall(frame(json.dumps(answer).encode()))
    arguments = ({"action": "x"},) if method == "request" else ()
    if isinstance(expected, tuple):
        with pytest.raises(DaemonRefusal) as caught:
            await subject.call(method, *arguments)
        assert (caught.value.word, caught.value.reason, caught.value.code) == (*expected, 1014)
    else:
        assert await subject.call(method, *arguments) == expected
    await subject.call("close")
