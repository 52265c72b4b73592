"""Enrolment over HTTP: the two calls, and errors in the management API's shape."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from tests.api.servers import Serving, serving_by_connections
from tests.http.server.listener import LIMITS, Served, request_bytes
from wazuh_comms_trio.api.enrollment import create_enrollment_app
from wazuh_comms_trio.api.problems import describe_management
from wazuh_comms_trio.errors import AgentExists, BackendUnavailable, MalformedRequest
from wazuh_comms_trio.services.enrollment import Unauthorized
from wazuh_comms_trio.testing.agent.http import Reply

BASIC = b"Authorization: Basic " + b64encode(b"admin:se:cret")


@define
class FakeEnrollment:
    error: Exception | None = None
    takes: float = 0.0
    calls: list[tuple[Any, ...]] = field(factory=list)

    async def log_in(self, user: str, password: str, *, peer: str | None = None) -> str:
        self.calls.append((user, password, peer))
        await trio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return "session"

    async def enrol(self, token: str, body: bytes | bytearray, *, peer: str | None = None) -> Mapping[str, Any]:
        self.calls.append((token, bytes(body)))
        await trio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return {"id": "u"}


Enrolling = Callable[[FakeEnrollment], AbstractAsyncContextManager[Served]]


@pytest.fixture
def enrolling(serving: Serving) -> Enrolling:
    def served(fake: FakeEnrollment) -> AbstractAsyncContextManager[Served]:
        return serving(app=create_enrollment_app(cast(Any, fake), LIMITS))

    return served


@asynccontextmanager
async def enrolling_by_connections(fake: FakeEnrollment) -> AsyncIterator[Served]:
    """Which describe what they refuse themselves in the management API's shape."""
    app = create_enrollment_app(cast(Any, fake), LIMITS)
    async with serving_by_connections(app=app, describe=describe_management) as server:
        yield server


def shape(reply: Reply) -> tuple[int, int]:
    document = reply.json()
    assert set(document) == {"title", "detail", "error"}
    assert all(document.values())
    return reply.status, document["error"]


async def log_in(server: Served, *headers: bytes) -> Reply:
    return await server.ask(request_bytes("POST", "/security/user/authenticate", b"", token=None, headers=headers))


async def test_the_two_calls(enrolling: Enrolling) -> None:
    fake = FakeEnrollment()
    async with enrolling(fake) as server:
        reply = await log_in(server, BASIC)
        assert (reply.status, reply.json()) == (200, {"data": {"token": "session"}, "error": 0})
        reply = await server.request("POST", "/agents", b"{}", token=b"session")
        assert (reply.status, reply.json()) == (201, {"data": {"id": "u"}, "error": 0})
    assert fake.calls == [("admin", "se:cret", "127.0.0.1"), ("session", b"{}")]


@pytest.mark.parametrize(
    "header", [b"X: y", b"Authorization: Basic !", b"Authorization: Bearer x", BASIC + b"\r\n" + BASIC]
)
async def test_no_user_no_token(enrolling: Enrolling, header: bytes) -> None:
    fake = FakeEnrollment()
    async with enrolling(fake) as server:
        reply = await log_in(server, header)
        assert shape(reply) == (401, 401)
        assert reply.header("www-authenticate") is not None
        assert shape(await server.request("POST", "/agents", b"{}", token=None)) == (401, 401)
    assert fake.calls == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unauthorized(), (401, 401)),
        (AgentExists(), (409, 409)),
        (MalformedRequest(), (400, 400)),
        (BackendUnavailable(), (503, 503)),
    ],
)
async def test_errors(enrolling: Enrolling, error: Exception, expected: tuple[int, int]) -> None:
    async with enrolling(FakeEnrollment(error)) as server:
        assert shape(await log_in(server, BASIC)) == expected
        assert shape(await server.request("POST", "/agents", b"{}")) == expected


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/agents", 405),
        ("GET", "/security/user/authenticate", 405),
        ("POST", "/", 404),
        ("POST", "/agents/", 404),
        ("POST", "/api/v1/authentication", 404),
    ],
)
async def test_other_routes(enrolling: Enrolling, method: str, path: str, status: int) -> None:
    async with enrolling(FakeEnrollment()) as server:
        assert shape(await server.request(method, path)) == (status, status)


@pytest.mark.parametrize("path", ["/security/user/authenticate", "/agents"])
async def test_a_body_in_a_coding_is_415(path: str) -> None:
    fake = FakeEnrollment()
    async with enrolling_by_connections(fake) as server:
        reply = await server.ask(request_bytes("POST", path, b"{}", headers=[BASIC, b"Content-Encoding: gzip"]))
        assert shape(reply) == (415, 415)
        assert reply.header("accept-encoding") == "identity"
    assert fake.calls == []


async def test_bodies_that_are_too_large(enrolling: Enrolling) -> None:
    async with enrolling(FakeEnrollment()) as server:
        assert shape(await server.request("POST", "/agents", b"x" * 70_000)) == (413, 413)


async def test_bad_requests_are_in_its_shape_too() -> None:
    async with enrolling_by_connections(FakeEnrollment()) as server:
        assert shape(await server.ask(b"rubbish\r\n\r\n")) == (400, 400)


async def test_a_log_in_that_takes_for_ever(autojump_clock: MockClock) -> None:
    async with enrolling_by_connections(FakeEnrollment(takes=1000)) as server:
        began = trio.current_time()
        assert shape(await log_in(server, BASIC)) == (408, 408)
        assert trio.current_time() - began == pytest.approx(45)


def test_documents_are_json() -> None:
    body = describe_management(AgentExists()).body
    assert json.loads(body)["title"] == "Conflict"
