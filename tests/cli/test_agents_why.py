"""``wazuh-comms agents why``: what is known of an agent, in sentences with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.conftest import Tool
from wazuh_comms_trio.backends.interfaces import Action, Agent, Command, Target
from wazuh_comms_trio.backends.presence import NodeNews
from wazuh_comms_trio.cli.agents.nodes import all_news
from wazuh_comms_trio.cli.agents.why import Facts, explain
from wazuh_comms_trio.config.models import Config

UUID = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
NOW = 1_750_000_000.0
AGENT = Agent(UUID, "web-1", "hash", last_login=NOW - 100)


def at(seconds: float, cause: str | None = None, address: str = "10.0.0.7") -> dict[str, Any]:
    return {"at": NOW - seconds, "address": address, **({} if cause is None else {"cause": cause})}


def seen(parked: int = 0, returns: int = 0, addresses: Any = None, **channels: tuple[Any, Any]) -> dict[str, Any]:
    kinds = {name: {"success": success, "refusal": refusal} for name, (success, refusal) in channels.items()}
    return {"channels": kinds, "addresses": addresses or {}, "returns": returns, "parked": parked, "limits": []}


def told(agent: Agent | None = AGENT, **facts: Any) -> str:
    facts.setdefault("seen", seen())
    return "\n".join(explain(Facts(UUID, agent, now=NOW, **facts)))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"agent": None}, ["No agent has the uuid", "Let it join again", "Nothing was heard of it"]),
        ({"seen": seen(parked=1, poll=(at(200), None))}, ["It is there: its poll waits", "sends no events"]),
        (
            {"seen": seen(stateless=(at(20), None))},
            ["It is there: it was heard 20 s ago", "\nStateless events, last taken: 2025-06-15T"],
        ),
        ({"seen": seen(poll=(at(7200), None))}, ["It is silent since 2025-06-15T13:06:40", "(2 hours)"]),
        (
            {"seen": seen(login=(at(900), at(5, "wrong_key")))},
            [
                "\nLog-in, last refused: 2025-06-15T",
                "from 10.0.0.7: wrong_key",
                f"agents rekey {UUID}",
                "It is silent since",
            ],
        ),
        ({"seen": seen(login=(at(5), at(900, "wrong_key")))}, ["wrong_key; it was taken since"]),
        (
            {"seen": seen(login=(at(60), at(5, "wrong_key")), poll=(at(50), None))},
            ["heard 50 s ago.\nSince then a log-in with its uuid was refused", "agents rekey"],
        ),
        ({"seen": seen(login=(at(60), at(5, "unavailable")))}, ["It is there: it was heard 60 s ago.\nLog-in"]),
        (
            {"agent": None, "seen": seen(login=(None, at(5, "unknown_agent")))},
            ["unknown_agent", f"agents add NAME --uuid {UUID}"],
        ),
        ({"seen": seen(token=(None, at(5, "agent_rekeyed")))}, ["it has another key since"]),
        ({"seen": seen(token=(None, at(5, "from_the_future")))}, ["NTP"]),
        ({"seen": seen(stateful=(None, at(5, "503 Service Unavailable")))}, ["a store was away or a limit"]),
        ({"seen": seen(stateless=(None, at(5, "429 Too Many Requests")))}, ["`limits` gives one agent"]),
        ({"seen": seen(files=(None, at(5, "404 Not Found")))}, ["it asked for a file that isn't in `files.path`"]),
        ({"seen": seen(stateful=(None, at(5, "408 Request Timeout")))}, ["came too slowly"]),
        ({"seen": seen(login=(None, at(5, "foreign_certificate")))}, ["has to name its uuid (`ssl.client_identity`)"]),
        ({"groups_without_file": ["db"], "files": "/g"}, ["Its group db has no file db.yml in /g on this node"]),
        (
            {"seen": seen(returns=3, addresses={"10.0.0.7": NOW - 5, "10.0.0.8": NOW - 9}, poll=(at(5), None))},
            ["10.0.0.7 and 10.0.0.8 in turn", "copies of one machine"],
        ),
        ({"silent": "the daemon doesn't run"}, ["What was heard of it isn't known: the daemon doesn't run."]),
        ({"quarantined": 3}, [f"3 of its events are in quarantine, and `wazuh-comms quarantine list --agent {UUID}`"]),
        (
            {"commands": [Command("c1", Target("agent", UUID), Action("restart"))]},
            ["1 command waits for it, c1 (restart)."],
        ),
        (
            {"commands": [Command(name, Target("agent", UUID), Action("restart")) for name in ("c2", "c1")]},
            ["2 commands wait for it, the newest c2 (restart)."],
        ),
        ({"shared": True, "unasked": "no right"}, ["Only this node was asked", "can't be read: no right"]),
        ({"shared": True}, ["No other node has heard of it"]),
        (
            {"shared": True, "nodes": ["n2:1"]},
            ["Others heard of it, too", "a minute old: n2:1."],
        ),
        ({"silent": "it doesn't run", "stored": NOW - 60}, ["isn't known", "It was heard last at", "(60 s ago)"]),
        ({"stored": NOW - 7200}, ["Nothing was heard of it since the daemon started", "(2 hours ago), as is stored"]),
        ({"unreadable": "key: Expected `str`"}, ["its record can't be used"]),
    ],
)
def test_it_says_why_and_what_to_do(facts: dict[str, Any], said: list[str]) -> None:
    text = told(**facts)
    for words in said:
        assert words in text


def test_an_agent_that_was_removed_is_not_there() -> None:
    text = told(agent=None, seen=seen(poll=(at(5), None), token=(None, at(1, "agent_removed"))))
    assert "It was heard last at 2025-06-15T" in text
    assert "It is there" not in text
    assert "It polls" not in text


def test_one_who_moved_is_no_clone() -> None:
    addresses = {"10.0.0.7": NOW - 5, "10.0.0.8": NOW - 9}
    assert "in turn" not in told(seen=seen(returns=1, addresses=addresses, poll=(at(5), None)))
    moved = told(seen=seen(returns=9, addresses={"10.0.0.7": NOW - 5, "10.0.0.8": NOW - 9999}))
    assert "in turn" not in moved
    assert "It was heard from 10.0.0.7 (last 2025-06-15T15:06:35Z), 10.0.0.8 (last 2025-06-15T12:20:01Z)." in moved
    assert "It was heard from" not in told(seen=seen(addresses={"10.0.0.7": NOW - 5}))


def test_what_an_agent_says_makes_no_line_of_its_own() -> None:
    assert len(explain(Facts(UUID, Agent(UUID, "a\nb\x1b[2J", "h"), seen(), now=NOW))) == 2
    assert "\x1b" not in told(Agent(UUID, "a\nb\x1b[2J", "h"))


def test_without_a_daemon(tool: Tool) -> None:
    tool("agents", "add", "web-1", "--uuid", UUID)
    why = tool("agents", "why", "web-1")
    assert why.status == 0
    assert why.lines[0] == f"Agent web-1 ({UUID}) has never logged in."
    assert "the daemon doesn't run" in why.lines[1]
    document = tool("--json", "agents", "why", "web-1").document
    assert (document["uuid"], document["enrolled"], document["heard"]) == (UUID, True, {})


def test_a_group_without_a_file_is_named(tool: Tool, config: Config) -> None:
    tool("agents", "add", "web-1", *(word for group in ("web", "db", "old") for word in ("--group", group)))
    folder = config.communications_api.files.path
    (folder / "web.yml").write_text("agent: {}\n")
    (folder / "old.conf").write_text("agent: {}\n")
    said = [line for line in tool("agents", "why", "web-1").lines if line.startswith("Its group")]
    assert len(said) == 1
    assert said[0].startswith(f"Its group db has no file db.yml in {folder} ")


def of_node(name: str, address: str, first: float, last: float, refusal: dict[str, Any] | None = None) -> NodeNews:
    """What a node stored: polls from ``address`` from ``first`` until ``last`` seconds ago."""
    channels: dict[str, Any] = {"poll": {"success": {"at": NOW - last, "address": address}}}
    if refusal:
        channels["login"] = {"refusal": refusal}
    news = {"channels": channels, "addresses": [[address, NOW - first, NOW - last]]}
    return NodeNews(f"id of {name}", name, NOW - last, None, news)


def over_nodes(own: dict[str, Any] | None, *stored: NodeNews, **facts: Any) -> str:
    together, nodes = all_news(own, stored, "id of n1")
    return told(seen=together, nodes=nodes, shared=True, **facts)


def test_three_nodes_know_of_it() -> None:
    own = seen(login=(None, at(30, "wrong_key")))
    second = of_node("n2", "10.0.0.7", 4000, 100)
    third = of_node("n3", "10.0.0.7", 4000, 200, at(500, "unavailable"))
    text = over_nodes(own, second, third)
    assert "It is there: it was heard 100 s ago." in text
    assert "Poll for commands, last taken: 2025-06-15T15:05:00Z from 10.0.0.7 by n2." in text
    assert "from 10.0.0.7: wrong_key" in text  # our own, and the last one
    assert text.endswith("may be a minute old: n2, n3.")


def test_a_daemon_that_began_anew_knows_what_it_stored() -> None:
    text = over_nodes(seen(), of_node("n1", "10.0.0.7", 4000, 900))
    assert "It is silent since 2025-06-15T14:51:40Z" in text
    assert "by n1" not in text  # it is this one
    assert text.endswith("No other node has heard of it, as of a minute ago.")
    text = over_nodes(None, of_node("n1", "10.0.0.7", 4000, 100), silent="it doesn't run")
    assert "What this node heard of it lately isn't known: it doesn't run." in text
    assert "It is there: it was heard 100 s ago." in text


def test_two_hosts_with_one_key_at_two_nodes() -> None:
    """Each node sees one address only."""
    second = of_node("n2", "10.0.0.7", 1800, 20)
    assert "10.0.0.7 and 10.0.0.8 in turn" in over_nodes(None, second, of_node("n3", "10.0.0.8", 1700, 10))
    assert "in turn" not in over_nodes(None, second, of_node("n3", "10.0.0.8", 100, 10))  # it may have moved just now
    assert "in turn" not in over_nodes(None, of_node("n2", "10.0.0.7", 5000, 850), of_node("n3", "10.0.0.8", 840, 10))
    assert "in turn" not in over_nodes(None, second, of_node("n3", "10.0.0.7", 1700, 10))  # one host, two nodes
