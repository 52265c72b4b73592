"""No text of any argument changes the form of what is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import MessageInvalid, NotInRelease
from wazuh_comms_trio.transport import (
    component_configuration,
    create_task,
    db_agent_groups,
    db_group_agents,
    delete_inventory,
    keystore_get,
    keystore_put,
    module_query,
    release_of,
    update_scanner,
    upgrade_agents,
    upgrade_agents_custom,
)
from wazuh_comms_trio.transport.server import orders
from wazuh_comms_trio.transport.server.orders import Calls, Datagrams

G = release_of("5.0.0")
PATHS = ["../x", "/tmp/a.wpk", "/tmp/../x", "v5.0.0", "..", "a/../b"]
TEXT = st.text(max_size=20) | st.sampled_from(
    [*PATHS, "001", "a|b", "a b", "a\nb", "x\0", "é", "\ud800", "", "001 x", "%2e"]
)


def made(make: Callable[[], Any], release: Any = G) -> Any:
    """What is sent, None where the call is refused."""
    try:
        return make().prepare(release)
    except (MessageInvalid, NotInRelease):
        return None


@given(TEXT, TEXT, TEXT)
def test_keystore(family: str, key: str, value: str) -> None:
    if (request := made(lambda: keystore_put(family, key, value))) is not None:
        assert request.decode().split("|", 3) == ["PUT", family, key, value]
        assert b"\0" not in request
    if (request := made(lambda: keystore_get(family, key))) is not None:
        assert request.decode().split("|") == ["GET", family, key]


@given(TEXT)
def test_text_requests_are_one_line(text: str) -> None:
    for make, words in (
        (lambda: component_configuration("monitor", text), ["getconfig", text]),
        (lambda: module_query(text), ["query", text]),
    ):
        if (request := made(make)) is not None:
            assert request.decode().split(" ", 1) == words
            assert not any(char < 32 for char in request)
    if (request := made(lambda: component_configuration("monitor", text))) is not None:
        assert request.count(b" ") == 1


@given(TEXT, TEXT, TEXT)
def test_json_requests_say_what_was_given(agent: str, version: str, path: str) -> None:
    if (request := made(lambda: upgrade_agents([agent], version=version))) is not None:
        found = json.loads(request)["parameters"]
        assert (found["agents"], found["version"]) == ([int(agent)], version)
    if (request := made(lambda: upgrade_agents([agent], wpk_repo=path))) is not None:
        repository = json.loads(request)["parameters"]["wpk_repo"]
        assert repository == path
        assert ".." not in repository.split("/")
    if (request := made(lambda: upgrade_agents_custom(agent, path, installer=version))) is not None:
        found = json.loads(request)["parameters"]
        assert (found["file_path"], found["installer"]) == (path, version)
        assert ".." not in path.split("/")
        assert "/" not in version
    if (request := made(lambda: create_task(agent, "agent_restart", {"x": version}, source_id=path))) is not None:
        found = json.loads(request)
        assert (found["agent_id"], found["payload"], found["source_id"]) == (agent, {"x": version}, path)


@given(TEXT)
def test_http_targets_and_headers_are_one_word(text: str) -> None:
    requests = [
        made(lambda: db_agent_groups(text), release_of("4.14.2")),
        made(lambda: db_agent_groups(text)),
        made(lambda: db_group_agents(text), release_of("4.14.2")),
        made(lambda: delete_inventory(text)),
        made(lambda: update_scanner(text)),
    ]
    for request in requests:
        if request is None:
            continue
        parts = request.target.split("/")
        assert request.target.isascii()
        assert not {" ", "\r", "\n", "?", "#", ".."} & {*request.target, *parts}
        for name, value in request.headers:
            assert value.isascii()
            assert value.isprintable()
            assert name.isprintable()
    if requests[4] is not None:
        assert json.loads(requests[4].body) == {"topic": text}


@given(st.lists(TEXT, min_size=1, max_size=3), st.sampled_from(["4.7.5", "5.0.0-beta3", "5.0.0"]))
def test_orders_reach_only_those_named(agents: list[str], version: str) -> None:
    release = release_of(version)
    try:
        plan = orders.plan_restart(release, agents)
    except MessageInvalid:
        return
    if isinstance(plan, Datagrams):
        assert plan.targets == tuple(agents)
        for agent, datagram in zip(agents, plan.payloads, strict=True):
            assert datagram.split(b" ")[3].decode() == agent
            assert datagram.count(b"\n") == 0
    else:
        assert isinstance(plan, Calls)
        for agent, call in zip(agents, plan.calls, strict=True):
            request = call.prepare(release).decode()
            if release.group == "G":
                assert json.loads(request)["agent_id"] == agent
            else:
                assert request == f"{agent} control restart"
