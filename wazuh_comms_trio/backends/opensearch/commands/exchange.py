"""What the workers of a node tell each other of pending commands.

The leader searches, and publishes what has changed since it published last. The others ask it to search for their
agents, where there is too much to find it all, and, when they know nothing yet, for everything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import Final

import trio

from wazuh_comms_trio.backends.leadership import Finding, Leadership
from wazuh_comms_trio.backends.opensearch.commands.documents import Document, document_from, document_to
from wazuh_comms_trio.backends.opensearch.commands.interest import Interest
from wazuh_comms_trio.backends.opensearch.commands.news import News
from wazuh_comms_trio.backends.opensearch.commands.pending import LARGEST, PendingCommands

_TOPIC: Final = "commands"
#: Documents in one message.
_DOCUMENTS_AT_ONCE: Final = 100
#: Seconds between two messages with the ids of all that is pending; and how long before its arrival a message's
#: receiver may have learned what is newer.
_ALL_INTERVAL: Final = 60.0
_ON_ITS_WAY: Final = 5.0


class WorkerExchange:
    """Fills ``pending``, ``interest`` and ``news`` with what other workers send, and sends them what they lack."""

    def __init__(self, leadership: Leadership, pending: PendingCommands, interest: Interest, news: News) -> None:
        self._leadership = leadership
        self._pending = pending
        self._interest = interest
        self._news = news
        #: The versions that were published.
        self._published: dict[str, int] = {}
        self._published_all_at = -inf
        self._woken = trio.Event()
        leadership.register(
            _TOPIC,
            on_finding=self._handle_finding,
            on_request=self._handle_request,
            on_change=self._handle_leader_change,
        )

    @property
    def is_leader(self) -> bool:
        return self._leadership.is_leader

    def begin_round(self) -> None:
        """Messages that come from now on wake ``wait_until_woken``."""
        self._woken = trio.Event()

    async def wait_until_woken(self) -> None:
        """Waits until another worker, or a change of leader, asks for a round at once."""
        await self._woken.wait()

    # --- to the others ---

    def note_interest(self, agent_ids: Collection[str]) -> None:
        """These agents asked for commands here."""
        self._interest.note(agent_ids, report=not self.is_leader)

    def publish(self, documents: Sequence[Document], gone: Mapping[str, int] | None = None) -> None:
        """Sends the other workers documents that were found or written here, and versions (by id) that are gone."""
        for start in range(0, len(documents), _DOCUMENTS_AT_ONCE):
            part = documents[start : start + _DOCUMENTS_AT_ONCE]
            self._leadership.publish(_TOPIC, {"documents": list(map(document_to, part))})
        if gone:
            self._leadership.publish(_TOPIC, {"gone": gone})

    def publish_changes(self, found: Sequence[Document], *, whole: bool) -> None:
        """Sends the other workers, of what a search found, what they don't know yet. ``whole``: what it didn't find is
        gone."""
        versions = {document.id: document.seq_no for document in found}
        gone = {i: seq_no for i, seq_no in self._published.items() if i not in versions} if whole else None
        self.publish([each for each in found if self._published.get(each.id) != each.seq_no], gone)
        self._published = versions if whole or len(self._published) > LARGEST else self._published | versions

    def publish_all(self, found: Sequence[Document], *, age: float) -> None:
        """Now and then, the ids of all that is pending, as a search saw it ``age`` seconds ago: what no search has ever
        shown, or an earlier leader published, is to be forgotten one day."""
        now = trio.current_time()
        if now - self._published_all_at >= _ALL_INTERVAL:
            self._published_all_at = now
            self._leadership.publish(_TOPIC, {"all": [document.id for document in found], "age": age})

    def report_interest(self) -> None:
        """Tells the leader, which is another worker, of the agents that came here since the last report."""
        if agents := self._interest.take_unreported():
            self._leadership.ask_leader(_TOPIC, {"agents": agents})

    # --- from the others ---

    def _handle_finding(self, finding: Finding) -> None:
        """Documents that another worker found; versions (id -> version) that are gone; or the ids of all that was
        pending some seconds ago."""
        now = trio.current_time()
        for data in finding.get("documents", ()):
            self._pending.put(document_from(data), now)
        for document_id, seq_no in finding.get("gone", {}).items():
            self._pending.drop_version(document_id, seq_no)
        if "all" in finding:
            self._pending.keep_only(set(finding["all"]), now - float(finding["age"]) - _ON_ITS_WAY)
        self._news.announce()

    def _handle_request(self, request: Finding) -> None:
        self._interest.note(request.get("agents", ()))
        if request.get("all"):
            self._forget_published()
            self._woken.set()  # a worker that has just come needn't wait for the next round

    def _handle_leader_change(self) -> None:
        self._woken.set()
        self._forget_published()
        self._interest.take_unreported()
        if not self.is_leader:
            self._leadership.ask_leader(_TOPIC, {"agents": self._interest.agents(), "all": True})

    def _forget_published(self) -> None:
        self._published.clear()
        self._published_all_at = -inf
