"""The application's side of ASGI, without a server: what it sends when a handler raises."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

import pytest
import trio

from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.http.server.application import PlainApplication
from wazuh_comms_trio.http.server.hypercorn_protocol import Message, Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.peer import PeerGone
from wazuh_comms_trio.http.server.routing import Routes

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


async def sent(messages: Iterable[Message], error: Exception | None, *, method: str = "GET") -> list[Message]:
    """What reaches the server from a handler that sends these, and then raises."""
    passed: list[Message] = []
    await call(messages, error, passed, method)
    return passed


async def call(
    messages: Iterable[Message],
    error: Exception | None,
    passed: list[Message],
    method: str = "GET",
    client: tuple[str, int] = ("10.0.0.1", 5),
) -> None:
    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    app = PlainApplication(Routes({"/": {"GET": handler}}), describe)
    scope = {"type": "http", "method": method, "path": "/", "client": client}
    await app(scope, trio.sleep_forever, collector(passed))


def collector(passed: list[Message]) -> Send:
    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        passed.append(message)

    return send


def status_and_code(messages: list[Message]) -> tuple[int, int]:
    start, body = messages
    assert (start["type"], body["type"], body["more_body"]) == ("http.response.start", "http.response.body", False)
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(body["body"])
    return start["status"], json.loads(body["body"])["code"]


async def test_replies_go_through() -> None:
    assert await sent([START, PART, PART, END], None) == [START, PART, PART, END]


@pytest.mark.parametrize("before", [[], [START]], ids=["nothing sent", "only the head"])
async def test_an_error_before_the_body_is_answered(before: list[Message]) -> None:
    assert status_and_code(await sent(before, BackendUnavailable())) == (503, 503)


async def test_a_wrong_method_is_answered() -> None:
    messages = await sent([], None, method="PUT")
    assert status_and_code(messages) == (405, 405)
    assert (b"allow", b"GET") in messages[0]["headers"]


@pytest.mark.expects_errors
async def test_a_bug_is_answered_and_logged_once(unexpected_errors: list[str]) -> None:
    assert status_and_code(await sent([START], KeyError("secret"))) == (500, 500)
    assert len(unexpected_errors) == 1
    assert "GET / failed" in unexpected_errors[0]


async def test_an_error_within_the_body_goes_on_to_the_server() -> None:
    passed: list[Message] = []
    with pytest.raises(BackendUnavailable):
        await call([START, PART], BackendUnavailable(), passed)
    assert passed == [START, PART]


@pytest.mark.parametrize("error", [PeerGone(), ExceptionGroup("", [PeerGone(), PeerGone()])])
async def test_a_peer_that_left_is_told_nothing(error: Exception) -> None:
    passed: list[Message] = []
    with pytest.raises((PeerGone, ExceptionGroup)):
        await call([START], error, passed)
    assert passed == []


async def test_lifespan_and_websockets() -> None:
    app = PlainApplication(Routes(), describe)
    passed: list[Message] = []
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        await trio.lowlevel.checkpoint()
        return next(events)

    await app({"type": "lifespan"}, receive, collector(passed))
    assert passed == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]
    passed.clear()
    await app({"type": "websocket"}, receive, collector(passed))
    assert passed == [{"type": "websocket.close"}]


@pytest.mark.parametrize(
    ("client", "shown"), [(("10.0.0.1", 5), "10.0.0.1:5"), (("::1", 5), "[::1]:5"), (("::1", 0), "::1")]
)
async def test_whose_request_was_refused_is_logged(
    client: tuple[str, int], shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await call([], None, [], "PUT", client)
    assert [record.getMessage() for record in caplog.records] == [f"{shown} PUT /: 405 Method not allowed"]
