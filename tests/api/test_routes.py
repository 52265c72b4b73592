"""Every endpoint over an in-memory connection: what it answers, and what it asks of its service."""

from __future__ import annotations

import json

import pytest
import trio

from tests.api.edge import FakeOffer, Fakes, problem, serving

STATEFUL = "/api/v1/events/stateful"
STATELESS = "/api/v1/events/stateless"


async def test_root_needs_no_token_and_has_no_body() -> None:
    async with serving() as server:
        reply = await server.request("GET", "/api/v1/", token=None)
    assert (reply.status, reply.body) == (200, b"")
    assert reply.header("connection") == "close"
    assert reply.header("content-length") == "0"


async def test_authentication() -> None:
    async with serving() as server:
        body = json.dumps({"uuid": "u", "key": "right", "more": [1]}).encode()
        reply = await server.request("POST", "/api/v1/authentication", body, token=None)
        assert (reply.status, reply.json()) == (200, {"token": "token-of-u"})
        body = json.dumps({"uuid": "u", "key": "wrong"}).encode()
        reply = await server.request("POST", "/api/v1/authentication", body, token=None)
        assert (reply.status, reply.json()) == (401, {"message": "Invalid key", "code": 401})


async def test_stateful_and_stateless() -> None:
    async with serving() as server:
        reply = await server.request("POST", STATEFUL, b"one body")
        assert (reply.status, reply.json()) == (200, {"results": []})
        reply = await server.request("POST", STATELESS, b"another")
        assert (reply.status, reply.body) == (204, b"")
    assert server.fakes.stateful.bodies == [b"one body"]
    assert server.fakes.stateless.bodies == [b"another"]
    assert server.fakes.stateless.lengths == [7]


async def test_files_and_scan() -> None:
    async with serving() as server:
        reply = await server.request("GET", "/api/v1/files?file_name=default.conf")
        assert (reply.status, reply.body) == (200, b"<agent/>")
        reply = await server.request("POST", "/api/v1/vulnerability/scan", b"{}")
        assert (reply.status, reply.body) == (200, b"[]")
        assert reply.header("content-type") == "application/json"


async def test_command_is_delivered_and_confirmed() -> None:
    fakes = Fakes()
    async with serving(fakes) as server:
        offer = FakeOffer()
        fakes.commands.offers.append(offer)
        reply = await server.request("GET", "/api/v1/commands")
        assert reply.status == 200
        assert reply.json()["commands"][0]["document_id"] == "c1"
        await trio.testing.wait_all_tasks_blocked()
        assert offer.fate == ["confirmed"]


async def test_poll_ends_with_408(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as server:
        began = trio.current_time()
        reply = await server.request("GET", "/api/v1/commands")
        assert problem(reply) == (408, 408)
        assert trio.current_time() - began == pytest.approx(300)
