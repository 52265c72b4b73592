"""The messages between a supervisor and its workers: what is on the wire is the same in all versions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trio.testing import MockClock, memory_stream_pair

from wazuh_comms_trio.backends.interfaces import Action, Command, Target
from wazuh_comms_trio.daemon.supervisor import messages
from wazuh_comms_trio.daemon.supervisor.link import Link, LinkBroken
from wazuh_comms_trio.daemon.supervisor.messages import KINDS, Message, Unknown, decode, encode, from_json, to_json
from wazuh_comms_trio.testing.node.node import open_node
from wazuh_comms_trio.wire.framing import encode_frame

#: Each kind as the first version with several workers wrote it. This changes by kinds and fields that are added.
ON_THE_WIRE: list[tuple[Message, dict[str, Any]]] = [
    (
        messages.WorkerConfig(
            duty=True,
            file="/etc/wazuh-server.yml",
            text="{}",
            listeners=messages.SharedListeners(api=[5, 6], enrollment=[7]),
            materials={"/etc/key.pem": "-----"},
            earlier=messages.EarlierKeys(public_keys=["pem"], seconds=900.5),
        ),
        {
            "type": "config",
            "duty": True,
            "file": "/etc/wazuh-server.yml",
            "text": "{}",
            "listeners": {"api": [5, 6], "enrollment": [7]},
            "materials": {"/etc/key.pem": "-----"},
            "earlier": {"public_keys": ["pem"], "seconds": 900.5},
        },
    ),
    (
        messages.Ready(public_key="pem", pid=12, duty=True),
        {"type": "ready", "public_key": "pem", "pid": 12, "duty": True},
    ),
    (messages.Failed(reason="no disk"), {"type": "failed", "reason": "no disk"}),
    (messages.Stop(spread=2.0, grace=None), {"type": "stop", "spread": 2.0, "grace": None}),
    (messages.ShortenStop(), {"type": "shorten"}),
    (messages.HurryStop(), {"type": "hurry"}),
    (messages.Drain(on=True), {"type": "drain", "on": True}),
    (messages.TrustKey(public_key="pem"), {"type": "trust", "public_key": "pem"}),
    (messages.RevokeKeys(keys={"kid": 1.5}), {"type": "revoke", "keys": {"kid": 1.5}}),
    (messages.HealthRequest(), {"type": "ask"}),
    (messages.HealthReport(report={"pid": 12}), {"type": "beat", "report": {"pid": 12}}),
    (messages.HealthRequest(look=True), {"type": "ask", "look": True}),
    (messages.HealthReport(report={}, looked=True), {"type": "beat", "report": {}, "looked": True}),
    (messages.MetricsRequest(), {"type": "count"}),
    (messages.MetricsReport(snapshot={"values": []}), {"type": "counted", "snapshot": {"values": []}}),
    (
        messages.OperatorsConfig(listener=5, log={"level": "info"}, token="t"),  # noqa: S106
        {
            "type": "operators",
            "listener": 5,
            "log": {"level": "info"},
            "cert": None,
            "key": None,
            "ca": None,
            "token": "t",
        },
    ),
    (messages.AgentQuestion(number=1, agent="a"), {"type": "agent", "number": 1, "agent": "a"}),
    (
        messages.AgentAnswer(number=1, document={"parked": 1}),
        {"type": "about", "number": 1, "document": {"parked": 1}},
    ),
    (messages.NodeQuestion(number=1, about="ready"), {"type": "question", "number": 1, "about": "ready"}),
    (
        messages.NodeAnswer(number=1, document={"ready": True}),
        {"type": "answer", "number": 1, "document": {"ready": True}},
    ),
    (messages.LeaderChange(leader=True), {"type": "duty", "on": True}),
    (messages.Finding(topic="t", finding={"a": 1}), {"type": "finding", "topic": "t", "finding": {"a": 1}}),
    (messages.LeaderRequest(topic="t", request={"a": 1}), {"type": "wish", "topic": "t", "wish": {"a": 1}}),
    (
        messages.Post(number=1, commands=[{"document_id": "c1"}], delivered={"c0": 60}, seconds=1.5),
        {"type": "post", "number": 1, "commands": [{"document_id": "c1"}], "delivered": {"c0": 60}, "seconds": 1.5},
    ),
    (messages.PostTaken(number=1), {"type": "taken", "number": 1}),
    (messages.PostAnswer(number=1, error="no"), {"type": "posted", "number": 1, "error": "no"}),
    (messages.PostAnswer(number=1, commands=[]), {"type": "posted", "number": 1, "commands": []}),
    (messages.WithdrawPost(number=1), {"type": "unpost", "number": 1}),
    (messages.NewCommands(agents=["a"]), {"type": "news", "agents": ["a"]}),
    (messages.PollParked(agent="a"), {"type": "parked", "agent": "a"}),
    (messages.CommandsDelivered(ids={"c1": 60}), {"type": "delivered", "ids": {"c1": 60}}),
    (
        messages.HoldCommands(commands=[{"document_id": "c1"}], seconds=1.5),
        {"type": "hold", "commands": [{"document_id": "c1"}], "seconds": 1.5},
    ),
    (messages.WithdrawCommands(ids=["c1"]), {"type": "withdraw", "ids": ["c1"]}),
    (messages.AcquireCommands(number=2, ids=["c1"]), {"type": "acquire", "number": 2, "ids": ["c1"]}),
    (messages.CommandsGranted(number=2, ids=["c1"]), {"type": "granted", "number": 2, "ids": ["c1"]}),
    (messages.CommandsReturned(ids=["c1"]), {"type": "returned", "ids": ["c1"]}),
    (messages.CommandsFreed(ids=["c1"]), {"type": "free", "ids": ["c1"]}),
]
KNOWN = pytest.mark.parametrize(("message", "fields"), ON_THE_WIRE, ids=lambda value: type(value).__name__)


def test_every_kind_is_here() -> None:
    assert {fields["type"] for _, fields in ON_THE_WIRE} == set(KINDS)


@KNOWN
def test_what_is_on_the_wire(message: Message, fields: dict[str, Any]) -> None:
    assert json.loads(json.dumps(encode(message))) == fields
    assert decode(fields) == message


@KNOWN
def test_a_later_versions_fields_are_ignored(message: Message, fields: dict[str, Any]) -> None:
    assert decode({**fields, "later": [1]}) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "ready", "public_key": "pem"}, messages.Ready(public_key="pem")),
        ({"type": "stop", "spread": 2}, messages.Stop(spread=2.0)),
        (
            {"type": "post", "number": 1, "commands": [], "delivered": {}},
            messages.Post(number=1, commands=[], delivered={}),
        ),
    ],
)
def test_an_earlier_version_says_less(fields: dict[str, Any], message: Message) -> None:
    assert decode(fields) == message


def test_of_a_later_versions_kinds_only_the_name_is_known() -> None:
    assert decode({"type": "later", "since": [2]}) == Unknown("later")


def test_a_known_kind_with_other_contents_says_what_is_wrong() -> None:
    assert decode({"type": "taken", "number": "one"}) == Unknown("taken", "Expected `int`, got `str` - at `$.number`")


@pytest.mark.parametrize("frame", [b"[]", b"{}", b'{"type": 1}', b"{", b"\xff", b"[" * 5000, b"9" * 5000])
async def test_what_is_no_message_ends_the_link(frame: bytes) -> None:
    ours, theirs = memory_stream_pair()
    link = Link(theirs)
    await ours.send_all(encode_frame(frame))
    with pytest.raises(LinkBroken):
        await link.receive()


@KNOWN
def test_json_is_what_any_other_program_would_write(message: Message, fields: dict[str, Any]) -> None:
    assert json.loads(to_json(message)) == json.loads(json.dumps(encode(message)))
    assert from_json(json.dumps(fields).encode()) == message


@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e400", '"\\ud800"', "1" * 40, "-0.0", '"\u00e9\\/\\u0000"', "1e23"]
)
def test_what_python_takes_for_json_is_taken(value: str) -> None:
    """An earlier version writes by Python's own module."""
    text = f'{{"type": "beat", "report": {{"n": 1, "n": {value}}}}}'.encode()
    assert repr(from_json(text)) == repr(decode(json.loads(text)))


async def test_a_link_carries_any_text() -> None:
    """Also what a file's path may hold that isn't UTF-8."""
    ours, theirs = map(Link, memory_stream_pair())
    for message in (messages.Failed(reason="\udcff\0\n\U0001f600"), messages.HealthReport(report={"n": 2**70})):
        ours.send_nowait(message)
        await ours.flush()
        assert await theirs.receive() == message


async def test_a_post_says_what_was_delivered_before_its_worker_came(autojump_clock: MockClock) -> None:
    """Posted again, that is answered as delivered, though no other worker is left that would know."""
    async with open_node(1) as node:
        node.backends.commands.keeps_posted = False
        agent = await node.workers[0].enrol_agent()
        command = Command("c1", Target("agent", agent.uuid), Action("restart"), timeout=60)
        node.hub._delivered.add("c1", 60)  # as a worker that has ended had said
        answered = await node.post([command])
        assert [(each.document_id, each.status) for each in answered] == [("c1", "sent")]
