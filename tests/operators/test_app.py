"""The operators' application, without a daemon behind it."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from quart_trio import QuartTrio

from wazuh_comms_trio.api.operators import create_operators_app
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics

TOKEN = "t" * 20


class Node:
    """What is asked, with fixed answers."""

    def __init__(self) -> None:
        self.ready = True
        self.answers = True

    async def ask(self, about: str) -> dict[str, Any]:
        if not self.answers:
            raise BackendUnavailable("The node doesn't answer")
        if about == "metrics":
            metrics = Metrics()
            metrics.count(families.LOGINS_TAKEN)
            return metrics.snapshot()
        if about == "ready":
            reasons = [] if self.ready else ["worker 1: index: the disk is full"]
            return {"ready": self.ready, "reasons": reasons}
        return {"workers": []}


def app_of(node: Node, token: str | None = None) -> QuartTrio:
    return create_operators_app(node.ask, token=token)


async def test_what_can_be_read() -> None:
    client = app_of(Node()).test_client()
    reply = await client.get("/metrics")
    assert reply.status_code == 200
    found = {
        s.name: s.value for f in text_string_to_metric_families(await reply.get_data(as_text=True)) for s in f.samples
    }
    assert found["wazuh_comms_logins_taken_total"] == 1
    for path, document in (
        ("/healthz", {"status": "ok"}),
        ("/ready", {"ready": True, "reasons": []}),
        ("/status", {"workers": []}),
    ):
        reply = await client.get(path)
        assert (reply.status_code, await reply.get_json()) == (200, document)
        assert reply.headers["Connection"] == "close"
        assert reply.headers["Cache-Control"] == "no-store"


async def test_a_node_that_can_take_nothing_says_why() -> None:
    node = Node()
    node.ready = False
    client = app_of(node).test_client()
    reply = await client.get("/ready")
    assert reply.status_code == 503
    assert await reply.get_json() == {"ready": False, "reasons": ["worker 1: index: the disk is full"]}
    assert (await client.get("/healthz")).status_code == 200


async def test_a_node_that_does_not_answer_is_503_everywhere() -> None:
    node = Node()
    node.answers = False
    client = app_of(node).test_client()
    for path in ("/metrics", "/healthz", "/ready", "/status"):
        reply = await client.get(path)
        assert (reply.status_code, await reply.get_json()) == (503, {"message": "The node doesn't answer", "code": 503})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/metrics", "/status", "/nothing"])
async def test_it_is_for_reading_alone(method: str, path: str) -> None:
    reply = await app_of(Node()).test_client().open(path, method=method)
    assert (reply.status_code, reply.headers["Allow"]) == (405, "GET")


async def test_the_agents_api_on_paper() -> None:
    reply = await app_of(Node()).test_client().get("/openapi.json")
    assert reply.status_code == 200
    assert (await reply.get_json())["openapi"] == "3.1.0"


async def test_unknown_paths() -> None:
    for path in ("/", "/metrics/", "/api/v1/commands"):
        assert (await app_of(Node()).test_client().get(path)).status_code == 404


@pytest.mark.parametrize("given", [None, "", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ", "Bearer \xe9"])
async def test_without_its_token_nothing_is_read(given: str | None) -> None:
    client = app_of(Node(), TOKEN).test_client()
    headers = {} if given is None else {"Authorization": given}
    for path in ("/metrics", "/healthz", "/ready", "/status", "/openapi.json", "/nothing"):
        reply = await client.get(path, headers=headers)
        assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, 'Bearer realm="operators"')


async def test_with_its_token() -> None:
    reply = await app_of(Node(), TOKEN).test_client().get("/status", headers={"Authorization": f"Bearer {TOKEN}"})
    assert reply.status_code == 200
