"""The command socket's application: posts, status and reload, on both servers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from tests.api.servers import SERVERS, Serving, serving_by_hypercorn
from tests.http.server.listener import LIMITS, FakeDispatcher, problem, request_bytes, serving_unix
from wazuh_comms_trio.api.command_socket import Caller, create_command_app
from wazuh_comms_trio.backends.interfaces import Command
from wazuh_comms_trio.errors import BackendUnavailable

BODY = b'{"commands":[{"document_id":"c1","target":{"type":"agent","id":"a"},"action":{"name":"restart"}}]}'


@define
class FakeControl:
    reloaded: bool = True
    noted: list[tuple[Caller, str, str]] = field(factory=list)

    async def status(self) -> dict[str, Any]:
        return {"generation": 1}

    async def reload(self) -> dict[str, Any]:
        return {"reloaded": self.reloaded, "problems": [], "warnings": [], "needs_restart": []}

    async def drain(self, on: bool) -> dict[str, Any]:
        return {"drained": on or not self.reloaded, "parked": 3}

    async def note(self, caller: Caller, action: str, target: str, **details: object) -> None:
        self.noted.append((caller, action, target))


async def test_posts(serving: Serving) -> None:
    dispatcher, control = FakeDispatcher(), FakeControl()
    async with serving(app=create_command_app(dispatcher, LIMITS, control)) as server:
        reply = await server.request("POST", "/api/v1/commands", BODY)
        assert reply.status == 200
        assert [command["document_id"] for command in reply.json()["commands"]] == ["c1"]
    assert [command.document_id for command in dispatcher.posted] == ["c1"]
    assert control.noted == [(Caller(), "commands post", "c1")]


@pytest.mark.parametrize("reloaded", [True, False])
async def test_status_and_reload(serving: Serving, reloaded: bool) -> None:
    control = FakeControl(reloaded)
    async with serving(app=create_command_app(FakeDispatcher(), LIMITS, control)) as server:
        reply = await server.request("GET", "/api/v1/status")
        assert (reply.status, reply.json()) == (200, {"generation": 1})
        reply = await server.request("POST", "/api/v1/reload", b"")
        assert (reply.status, reply.json()["reloaded"]) == (200, reloaded)
    assert [action for _, action, _ in control.noted] == ["reload"] * reloaded


async def test_drain(serving: Serving) -> None:
    control = FakeControl()
    async with serving(app=create_command_app(FakeDispatcher(), LIMITS, control)) as server:
        for method, drained in (("POST", True), ("DELETE", False)):
            reply = await server.request(method, "/api/v1/drain", b"")
            assert (reply.status, reply.json()) == (200, {"drained": drained, "parked": 3})
        control.reloaded = False  # what isn't done isn't noted
        assert (await server.request("DELETE", "/api/v1/drain", b"")).json()["drained"] is True
    assert [(action, target) for _, action, target in control.noted] == [("drain", "node"), ("drain undo", "node")]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/commands", b"[", 400),
        ("GET", "/api/v1/commands", None, 405),
        ("PUT", "/api/v1/status", b"", 405),
        ("POST", "/commands", BODY, 404),
        ("GET", "/api/v1/commands/", None, 404),
    ],
)
async def test_refusals(serving: Serving, method: str, path: str, body: bytes | None, status: int) -> None:
    dispatcher = FakeDispatcher()
    async with serving(app=create_command_app(dispatcher, LIMITS, FakeControl())) as server:
        assert problem(await server.request(method, path, body)) == (status, status)
    assert dispatcher.posted == []


@pytest.mark.parametrize("path", ["/api/v1/commands", "/api/v1/reload"])
async def test_a_body_in_a_coding_is_415(serving: Serving, path: str) -> None:
    dispatcher, control = FakeDispatcher(), FakeControl()
    async with serving(app=create_command_app(dispatcher, LIMITS, control)) as server:
        reply = await server.ask(request_bytes("POST", path, BODY, headers=[b"Content-Encoding: gzip"]))
        assert problem(reply) == (415, 415)
        assert reply.header("accept-encoding") == "identity"
    assert (dispatcher.posted, control.noted) == ([], [])


class FailingPoster:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def post(self, commands: Sequence[Command]) -> Sequence[Command]:
        raise self.error


async def test_a_post_that_fails_is_noted_all_the_same(serving: Serving) -> None:
    control = FakeControl()
    async with serving(app=create_command_app(FailingPoster(BackendUnavailable()), LIMITS, control)) as server:
        assert problem(await server.request("POST", "/api/v1/commands", BODY)) == (503, 503)
    assert [action for _, action, _ in control.noted] == ["commands post"]


@pytest.mark.expects_errors
async def test_a_bug_is_a_500_and_logged_once(serving: Serving, unexpected_errors: list[str]) -> None:
    async with serving(app=create_command_app(FailingPoster(KeyError("secret")), LIMITS)) as server:
        reply = await server.request("POST", "/api/v1/commands", BODY)
        assert problem(reply) == (500, 500)
        assert b"secret" not in reply.body
    assert len(unexpected_errors) == 1


@pytest.mark.real_clock
@pytest.mark.parametrize("server_name", SERVERS)
async def test_on_a_unix_socket(server_name: str, tmp_path: Path) -> None:
    """Our own connections know the calling process, hypercorn doesn't."""
    path, dispatcher, control = tmp_path / "comms.sock", FakeDispatcher(), FakeControl()
    app = create_command_app(dispatcher, LIMITS, control)
    ours = server_name == "connections"
    async with serving_unix(app, path) if ours else serving_by_hypercorn(app=app, unix_path=path) as server:
        reply = await server.ask(request_bytes("POST", "/api/v1/commands", BODY, token=None))
        assert reply.status == 200
        assert problem(await server.ask(request_bytes("POST", "/commands", BODY, token=None))) == (404, 404)
    assert [command.document_id for command in dispatcher.posted] == ["c1"]
    assert [caller for caller, _, _ in control.noted] == [Caller(os.getuid(), os.getpid()) if ours else Caller()]
