"""What a node's workers tell each other of pending commands, and what they ask the leader for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from wazuh_comms_trio.backends import command_rules
from wazuh_comms_trio.backends.leadership import Finding, Leadership
from wazuh_comms_trio.backends.opensearch.commands.claims import Claims
from wazuh_comms_trio.backends.opensearch.commands.documents import Document
from wazuh_comms_trio.backends.opensearch.commands.exchange import WorkerExchange
from wazuh_comms_trio.backends.opensearch.commands.interest import Interest
from wazuh_comms_trio.backends.opensearch.commands.news import News
from wazuh_comms_trio.backends.opensearch.commands.pending import PendingCommands

A1, A2 = "a1", "a2"


class Recording(Leadership):
    """Keeps what is sent, and hands it to ``others``."""

    def __init__(self, *, leader: bool) -> None:
        super().__init__(leader=leader)
        self.others: list[Recording] = []
        self.findings: list[Finding] = []
        self.requests: list[Finding] = []

    def publish(self, topic: str, finding: Finding) -> None:
        self.findings.append(finding)
        for other in self.others:
            other.handle_finding(topic, finding)

    def ask_leader(self, topic: str, request: Finding) -> None:
        self.requests.append(request)
        for other in self.others:
            other.handle_request(topic, request)


class Worker:
    def __init__(self, *, leader: bool) -> None:
        self.leadership = Recording(leader=leader)
        self.pending = PendingCommands(lease=60.0)
        self.interest = Interest()
        self.news = News(self.pending)
        self.exchange = WorkerExchange(self.leadership, self.pending, self.interest, self.news)

    def knows(self) -> dict[str, int]:
        return {i: known.document.seq_no for i, known in self.pending._known.items()}


@pytest.fixture
def pair() -> tuple[Worker, Worker]:
    """The leader and another worker, connected."""
    leader, follower = Worker(leader=True), Worker(leader=False)
    leader.leadership.others.append(follower.leadership)
    follower.leadership.others.append(leader.leadership)
    return leader, follower


def document(document_id: str, seq_no: int = 1, agent_id: str = A1) -> Document:
    command: dict[str, Any] = {"status": "pending", "target": {"type": "agent", "id": agent_id}}
    return Document(document_id, {"command": command | {"action": {"name": "restart"}}}, seq_no, 1, 0.0)


@contextmanager
def sent(leadership: Recording) -> Iterator[list[Finding]]:
    """What is published within."""
    before = len(leadership.findings)
    found: list[Finding] = []
    yield found
    found += leadership.findings[before:]


async def test_only_what_changed_is_published(pair: tuple[Worker, Worker], autojump_clock: MockClock) -> None:
    leader, follower = pair
    leader.exchange.publish_changes([document("c1"), document("c2")], whole=True)
    assert follower.knows() == {"c1": 1, "c2": 1}
    with sent(leader.leadership) as messages:
        leader.exchange.publish_changes([document("c1"), document("c2")], whole=True)
    assert messages == []
    with sent(leader.leadership) as messages:
        leader.exchange.publish_changes([document("c2", 5), document("c3")], whole=True)
    assert [[each["id"] for each in message.get("documents", [])] for message in messages] == [["c2", "c3"], []]
    assert messages[1] == {"gone": {"c1": 1}}
    assert follower.knows() == {"c2": 5, "c3": 1}


async def test_a_search_of_a_part_ends_nothing(pair: tuple[Worker, Worker], autojump_clock: MockClock) -> None:
    leader, follower = pair
    leader.exchange.publish_changes([document("c1")], whole=True)
    leader.exchange.publish_changes([document("c2")], whole=False)
    assert follower.knows() == {"c1": 1, "c2": 1}


async def test_what_is_published_is_news_for_the_others_agents(
    pair: tuple[Worker, Worker], autojump_clock: MockClock
) -> None:
    leader, follower = pair
    leader.exchange.publish([document("c1"), document("c2", agent_id=A2)])
    assert await follower.news.wait() == {A1, A2}
    leader.exchange.publish([document("c1")])
    assert follower.news.announce() == 0


async def test_many_documents_are_several_messages(pair: tuple[Worker, Worker], autojump_clock: MockClock) -> None:
    leader, follower = pair
    leader.exchange.publish([document(f"c{number}") for number in range(250)])
    assert [len(message["documents"]) for message in leader.leadership.findings] == [100, 100, 50]
    assert len(follower.knows()) == 250


async def test_all_ids_once_a_minute_end_what_no_search_shows(
    pair: tuple[Worker, Worker], autojump_clock: MockClock
) -> None:
    leader, follower = pair
    follower.pending.put(document("left over"), trio.current_time())
    leader.exchange.publish([document("c1")])
    leader.exchange.publish_all([document("c1")], age=0.5)
    assert set(follower.knows()) == {"left over", "c1"}, "it may be newer than the message"
    await trio.sleep(10)
    with sent(leader.leadership) as messages:
        leader.exchange.publish_all([document("c1")], age=0.5)
    assert messages == []
    await trio.sleep(60)
    leader.exchange.publish_all([document("c1")], age=0.5)
    assert set(follower.knows()) == {"c1"}


async def test_the_leader_hears_of_an_agent_once(pair: tuple[Worker, Worker], autojump_clock: MockClock) -> None:
    leader, follower = pair
    follower.exchange.note_interest([A1, A2])
    follower.exchange.report_interest()
    follower.exchange.report_interest()
    assert follower.leadership.requests == [{"agents": [A1, A2]}]
    assert leader.interest.agents() == [A1, A2]
    leader.exchange.note_interest([A1])
    leader.exchange.report_interest()
    assert leader.leadership.requests == []


async def test_a_worker_that_comes_asks_for_everything_at_once(
    pair: tuple[Worker, Worker], autojump_clock: MockClock
) -> None:
    leader, follower = pair
    leader.exchange.publish_changes([document("c1")], whole=True)
    follower.pending.drop("c1")
    leader.exchange.begin_round()
    follower.leadership.set_leader(False)
    with trio.fail_after(1):
        await leader.exchange.wait_until_woken()
    leader.exchange.publish_changes([document("c1")], whole=True)
    assert follower.knows() == {"c1": 1}


async def test_agents_that_asked_long_ago_are_forgotten(autojump_clock: MockClock) -> None:
    interest = Interest()
    interest.note([A1, A2])
    await trio.sleep(600)
    interest.note([A1])
    await trio.sleep(600)
    assert interest.agents() == [A1]
    await trio.sleep(600)
    assert interest.agents() == []


class Ended:
    """An index in which the commands that are claimed have ended meanwhile."""

    async def change(self, documents: Any, decide: Any) -> dict[str, Document]:
        await trio.lowlevel.checkpoint()
        return {}


async def test_what_is_behind_commands_that_have_ended_is_news_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll is parked, and nobody else says so: a claim takes a hundred at a time."""
    monkeypatch.setattr(command_rules, "CLAIM_LIMIT", 1)
    worker = Worker(leader=True)
    for one in (document("ended"), document("behind")):
        worker.pending.put(one, trio.current_time())
    assert worker.pending.news(trio.current_time()) == {A1}
    claims = Claims(Ended(), worker.pending, worker.news, wall_clock=lambda: 0.0)  # type: ignore[arg-type]
    assert await claims.claim([A1]) == []
    assert worker.pending.news(trio.current_time()) == {A1}
