"""Finding pending commands: one query per node and interval, however many agents and workers wait.

The worker on duty searches and tells the others what has changed since it told them last. What the others want found,
where there is too much to find it all, and that they know nothing yet, they tell it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from math import inf
from typing import Any, Final

import trio

from wazuh_comms_trio.backends.leadership import Finding, Leadership
from wazuh_comms_trio.backends.opensearch.client.queries import Query, every, exactly
from wazuh_comms_trio.backends.opensearch.commands.documents import (
    PENDING,
    Document,
    document_from,
    document_to,
    id_query,
)
from wazuh_comms_trio.backends.opensearch.commands.index import CommandIndex, Place, Refused
from wazuh_comms_trio.backends.opensearch.commands.pending import LARGEST, Pending
from wazuh_comms_trio.config.models import IndexerCommands
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.backoff import Backoff
from wazuh_comms_trio.foundation.outage_log import OutageLog

logger = logging.getLogger(__name__)

_PAGE: Final = 1000
#: An agent counts as one of ours for so many seconds after it asked: longer than any poll.
_INTEREST: Final = 900.0
#: Two spellings each, twice in the query; index.max_terms_count is 65536.
_MOST_INTERESTING: Final = 30_000
#: How the interval grows from round to round without news.
_SLOWER: Final = 1.25
#: When a page was full there is more.
_SOON: Final = 0.1
#: Groups' commands expanded in one round.
_EXPANDED_AT_ONCE: Final = 10
#: Documents in one message to the other workers.
_TOLD_AT_ONCE: Final = 100
#: Seconds between two times that they are told of all that is pending; and what they learned so many seconds before
#: they hear of it may be newer than that.
_ALL_INTERVAL: Final = 60.0
_ON_ITS_WAY: Final = 5.0
_TOPIC: Final = "commands"


class Discovery:
    """``expand`` makes groups' commands those of their members; ``upkeep`` is done once a round."""

    def __init__(
        self,
        index: CommandIndex,
        pending: Pending,
        settings: IndexerCommands,
        *,
        expand: Callable[[Sequence[Document]], Awaitable[Any]],
        upkeep: Callable[[], Awaitable[None]],
        rng: random.Random,
        leadership: Leadership,
    ) -> None:
        self._index = index
        self._leadership = leadership
        leadership.register(_TOPIC, on_finding=self._take, on_request=self._note_wish, on_change=self._change_duty)
        self._pending = pending
        self._fastest = settings.interval
        self._slowest = max(settings.interval, settings.idle_interval)
        self._expand = expand
        self._upkeep = upkeep
        self._rng = rng
        self._interested: dict[str, float] = {}
        #: What the one on duty hasn't been told of that yet.
        self._unsaid: dict[str, None] = {}
        #: The versions that the others were told of.
        self._told: dict[str, int] = {}
        self._told_all_at = -inf
        self._narrow = False
        #: Where to look on, where there is more than a page for those who ask.
        self._after: Place | None = None
        self._news: set[str] = set()
        self._arrived = trio.Event()
        self._look_now = trio.Event()
        self._running = False

    # --- for the store ---

    def start(self, nursery: trio.Nursery) -> None:
        """Once; later calls do nothing."""
        if not self._running:
            self._running = True
            nursery.start_soon(self._run)

    async def wait(self) -> Collection[str]:
        """Agents with something new. A wait that is cancelled loses nothing."""
        while not self._news:
            self._arrived = trio.Event()
            await self._arrived.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
        news, self._news = self._news, set()
        return news

    def tell(self) -> None:
        """Passes on what is free and hasn't been told of."""
        news = self._pending.news(trio.current_time())
        if news:
            self._news |= news
            self._arrived.set()

    def tell_others(self, documents: Sequence[Document], gone: Mapping[str, int] | None = None) -> None:
        """Of documents that were found or written here, and of versions that are gone."""
        for start in range(0, len(documents), _TOLD_AT_ONCE):
            self._leadership.publish(
                _TOPIC, {"documents": list(map(document_to, documents[start : start + _TOLD_AT_ONCE]))}
            )
        if gone:
            self._leadership.publish(_TOPIC, {"gone": gone})

    def note_interest(self, agent_ids: Collection[str]) -> None:
        now = trio.current_time()
        for agent_id in agent_ids:
            self._interested.pop(agent_id, None)
            self._interested[agent_id] = now
        if not self._leadership.is_leader:
            self._unsaid.update(dict.fromkeys(agent_ids))

    # --- what other workers say ---

    def _take(self, finding: Finding) -> None:
        """Another one has found these, and what it had found is gone (id -> version); or all that there was so many
        seconds ago."""
        now = trio.current_time()
        for data in finding.get("documents", ()):
            self._pending.put(document_from(data), now)
        for document_id, seq_no in finding.get("gone", {}).items():
            self._pending.drop_version(document_id, seq_no)
        if "all" in finding:
            self._pending.keep_only(set(finding["all"]), now - float(finding["age"]) - _ON_ITS_WAY)
        self.tell()

    def _note_wish(self, wish: Finding) -> None:
        self.note_interest(wish.get("agents", ()))
        if wish.get("all"):
            self._forget_told()
            self._look_now.set()  # whoever has just come needn't wait for the next round

    def _change_duty(self) -> None:
        self._look_now.set()
        self._forget_told()
        self._unsaid.clear()
        if not self._leadership.is_leader:
            self._forget()
            self._leadership.ask_leader(_TOPIC, {"agents": list(self._interested), "all": True})

    def _forget_told(self) -> None:
        self._told.clear()
        self._told_all_at = -inf

    # --- the rounds ---

    async def _run(self) -> None:
        backoff = Backoff(self._fastest, self._slowest, factor=_SLOWER)
        outage = OutageLog(logger, "the search for commands", clock=trio.current_time)
        while True:
            self._look_now = trio.Event()
            try:
                busy, full = await (self._round() if self._leadership.is_leader else self._follow())
                outage.worked()
            except BackendUnavailable as exc:
                busy = full = False
                outage.failed(exc)
            except Exception:
                busy = full = False
                logger.exception("commands can't be found: an error of ours")
            if busy:
                backoff.reset()
            pause = _SOON if full else backoff.next_pause()
            # The same interval on several nodes would have them all claim at the same moment.
            with trio.move_on_after(pause * self._rng.uniform(0.9, 1.1)):
                await self._look_now.wait()

    async def _follow(self) -> tuple[bool, bool]:
        """What is left to do where another worker is on duty: what was claimed here, and claims whose time is over."""
        if self._unsaid:
            self._leadership.ask_leader(_TOPIC, {"agents": list(self._unsaid)})
            self._unsaid.clear()
        self._forget()
        await self._upkeep()
        before = len(self._news)
        self.tell()
        return len(self._news) > before, False

    async def _round(self) -> tuple[bool, bool]:
        """Whether there was something new, and whether there is more than was seen."""
        await self._upkeep()
        began = trio.current_time()
        narrow = self._narrow
        after, self._after = self._after if narrow else None, None
        found, total, place = await self._index.page(self._query(narrow), _PAGE, after)
        now = trio.current_time()
        for document in found:
            self._pending.put(document, now)
        complete = total <= len(found)
        if complete and not narrow:
            self._pending.keep_only({document.id for document in found}, began - self._index.staleness)
        if narrow:
            # The oldest may stay for long, of an agent that went for instance: what is behind them has its turn.
            self._after = place
        self._narrow = not complete or (narrow and total > _PAGE // 2)
        self._tell_changes(found, whole=complete and not narrow)
        if complete and not narrow and now - self._told_all_at >= _ALL_INTERVAL:
            # Also what no search has ever shown, or was told of by who was on duty before, is to be forgotten one day.
            self._told_all_at = now
            age = now - began + self._index.staleness
            self._leadership.publish(_TOPIC, {"all": [document.id for document in found], "age": age})
        before = len(self._news)
        self.tell()  # before groups, whose members perhaps nobody can read now
        groups = self._pending.groups(now)[:_EXPANDED_AT_ONCE]
        if groups:
            await self._expand_groups(groups)
            self.tell()
        busy = bool(groups) or len(self._news) > before
        return busy or self._after is not None, busy and not complete

    def _tell_changes(self, found: Sequence[Document], *, whole: bool) -> None:
        """What the others don't know yet. ``whole``: what isn't there is gone."""
        versions = {document.id: document.seq_no for document in found}
        gone = {i: seq_no for i, seq_no in self._told.items() if i not in versions} if whole else None
        self.tell_others([each for each in found if self._told.get(each.id) != each.seq_no], gone)
        self._told = versions if whole or len(self._told) > LARGEST else self._told | versions

    async def _expand_groups(self, groups: Sequence[Document]) -> None:
        ids = {document.id for document in groups}
        self._pending.busy |= ids
        try:
            await self._expand(groups)
        except Refused as exc:
            logger.warning("a group's command can't be expanded: the index refuses its children: %s", exc)
        finally:
            self._pending.busy -= ids

    def _query(self, narrow: bool) -> Query:
        """All that is pending; where that is too much, what concerns the agents that ask here."""
        if not narrow:
            return PENDING
        self._forget()
        for_groups = exactly("command.target.type", ["group", "GROUP", "Group"])
        if not self._interested:
            return every(PENDING, for_groups)
        ours = id_query("command.target.id", *self._interested)
        return every(PENDING, {"bool": {"should": [for_groups, ours], "minimum_should_match": 1}})

    def _forget(self) -> None:
        oldest = trio.current_time() - _INTEREST
        while self._interested:
            first = next(iter(self._interested))
            if self._interested[first] >= oldest and len(self._interested) <= _MOST_INTERESTING:
                break
            del self._interested[first]
