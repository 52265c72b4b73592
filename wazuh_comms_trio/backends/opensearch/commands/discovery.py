"""Finding pending commands: one query per node and interval, however many agents and workers wait.

The worker that is the leader searches; the others are told what it found (``exchange``).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from math import inf
from typing import Final

import trio

from wazuh_comms_trio.backends.opensearch.client.queries import Query, every
from wazuh_comms_trio.backends.opensearch.commands.claims import Claims
from wazuh_comms_trio.backends.opensearch.commands.documents import GROUPS, PENDING, id_query
from wazuh_comms_trio.backends.opensearch.commands.exchange import WorkerExchange
from wazuh_comms_trio.backends.opensearch.commands.group_expansion import GroupExpansion
from wazuh_comms_trio.backends.opensearch.commands.index import CommandIndex, Place
from wazuh_comms_trio.backends.opensearch.commands.interest import Interest
from wazuh_comms_trio.backends.opensearch.commands.news import News
from wazuh_comms_trio.backends.opensearch.commands.pending import PendingCommands
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.backoff import Backoff
from wazuh_comms_trio.foundation.outage_log import OutageLog

logger = logging.getLogger(__name__)

_PAGE: Final = 1000
#: How the interval grows from round to round without news.
_SLOWER: Final = 1.25
#: The interval after a page that was full: there is more.
_SOON: Final = 0.1
#: By how much intervals differ: the same one on several nodes would have them all claim at the same moment.
_JITTER: Final = (0.9, 1.1)
#: Seconds between two looks, of a worker that isn't the leader, for what is overdue: it forgets that at the second one.
_FORGET_INTERVAL: Final = 30.0
#: Groups' commands expanded in one round.
_EXPANDED_AT_ONCE: Final = 10


class Search:
    """The leader's search, page by page: all that is pending, or, where that is too much, what concerns the agents of
    ``interest``. Fills ``pending`` and tells the other workers."""

    def __init__(
        self, index: CommandIndex, pending: PendingCommands, interest: Interest, exchange: WorkerExchange
    ) -> None:
        self._index = index
        self._pending = pending
        self._interest = interest
        self._exchange = exchange
        self._narrow = False
        #: Where the next page begins, where there is more than one for the agents that ask.
        self._after: Place | None = None

    @property
    def has_next_page(self) -> bool:
        return self._after is not None

    async def next_page(self) -> bool:
        """Reads the next page; returns whether it showed all that is pending. Raises ``BackendUnavailable``."""
        began = trio.current_time()
        narrow = self._narrow
        after, self._after = self._after if narrow else None, None
        found, total, place = await self._index.page(self._query(narrow), _PAGE, after)
        now = trio.current_time()
        for document in found:
            self._pending.put(document, now)
        complete = total <= len(found)
        if narrow:
            # The oldest may stay for long, of an agent that went for instance: what is behind them has its turn.
            self._after = place
        self._narrow = not complete or (narrow and total > _PAGE // 2)
        whole = complete and not narrow
        if whole:
            self._pending.keep_only({document.id for document in found}, began - self._index.staleness)
        self._exchange.publish_changes(found, whole=whole)
        if whole:
            self._exchange.publish_all(found, age=now - began + self._index.staleness)
        return complete

    def _query(self, narrow: bool) -> Query:
        if not narrow:
            return PENDING
        agents = self._interest.agents()
        if not agents:
            return every(PENDING, GROUPS)
        ours = id_query("command.target.id", *agents)
        return every(PENDING, {"bool": {"should": [GROUPS, ours], "minimum_should_match": 1}})


class Discovery:
    """The leader's and the other workers' rounds of searching, one after the other. ``interval`` seconds between rounds
    while there is news, up to ``idle_interval`` while there is none."""

    def __init__(
        self,
        search: Search,
        pending: PendingCommands,
        interest: Interest,
        exchange: WorkerExchange,
        news: News,
        claims: Claims,
        groups: GroupExpansion,
        *,
        interval: float,
        idle_interval: float,
        wall_clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._now = wall_clock
        self._search = search
        self._pending = pending
        self._interest = interest
        self._exchange = exchange
        self._news = news
        self._claims = claims
        self._groups = groups
        self._backoff = Backoff(interval, max(interval, idle_interval), factor=_SLOWER)
        self._rng = rng
        self._running = False
        self._looked_at = -inf
        self._looked_overdue: set[str] = set()

    def start(self, nursery: trio.Nursery) -> None:
        """Begins the rounds; later calls do nothing."""
        if not self._running:
            self._running = True
            nursery.start_soon(self._run)

    async def _run(self) -> None:
        outage = OutageLog(logger, "the search for commands", clock=trio.current_time)
        while True:
            self._exchange.begin_round()
            try:
                busy, full = await (self._lead() if self._exchange.is_leader else self._follow())
                outage.worked()
            except BackendUnavailable as exc:
                busy = full = False
                outage.failed(exc)
            except Exception:
                busy = full = False
                logger.exception("commands can't be found: an error of ours")
            if busy:
                self._backoff.reset()
            pause = self._backoff.next_pause()
            with trio.move_on_after((_SOON if full else pause) * self._rng.uniform(*_JITTER)):
                await self._exchange.wait_until_woken()

    async def _follow(self) -> tuple[bool, bool]:
        """The round of a worker that isn't the leader: what was claimed here, and claims whose time is over. Returns
        whether there was something new, and False."""
        self._exchange.report_interest()
        self._interest.agents()
        await self._claims.upkeep()
        now = trio.current_time()
        if now - self._looked_at >= _FORGET_INTERVAL:
            # The leader ends what is overdue, and may not be able to say so: it is offered to nobody here. At one look
            # alone the wall clock may have been ahead for a moment, and what is forgotten isn't told again.
            self._looked_at = now
            overdue = {document.id for document in self._pending.overdue(now, self._now())}
            for document_id in overdue & self._looked_overdue:
                self._pending.drop(document_id)
            self._looked_overdue = overdue
        return self._news.announce() > 0, False

    async def _lead(self) -> tuple[bool, bool]:
        """The round of the leader. Returns whether there was something new, and whether there is more than was seen."""
        await self._claims.upkeep()
        complete = await self._search.next_page()
        new = self._news.announce()  # before groups, whose members perhaps nobody can read now
        groups = self._pending.groups(trio.current_time())[:_EXPANDED_AT_ONCE]
        if groups:
            await self._groups.expand_found(groups)
            new += self._news.announce()
        busy = bool(groups) or new > 0
        return busy or self._search.has_next_page, busy and not complete
