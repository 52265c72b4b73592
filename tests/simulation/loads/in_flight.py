"""Which requests are under way, or may be, and how many were begun: who is told that these are too many is told so
rightly, and no more are served than may be."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Final

import trio
from attrs import define

from tests.simulation.trace import Violation
from wazuh_comms_trio.config.limits.models import RouteLimit

if TYPE_CHECKING:
    from tests.simulation.nodes.network import Connection
    from tests.simulation.nodes.process import Process
    from tests.simulation.world import World

__all__ = ["InFlight", "Request"]

#: Seconds for which a request that got no answer may be under way at its worker.
_UNANSWERED: Final = 100.0
#: Seconds in which it is looked at how many were served.
_LOOKED_AT: Final = 20.0
#: Routes by place; the bodies of some may be uploads.
_ROUTES: Final = {
    "GET commands": "commands",
    "POST events/stateless": "stateless",
    "POST events/stateful": "stateful",
    "GET files": "files",
    "POST vulnerability/scan": "scan",
}
_UPLOADS: Final = ("stateless", "stateful", "scan")
_NO_LIMIT: Final = RouteLimit()


@define(eq=False)
class Request:
    """One of an agent's, whoever makes it with its token. ``is_upload``: its length isn't known beforehand. ``status``:
    None without an answer."""

    agent_id: str
    route: str
    is_upload: bool
    began: float
    ended: float | None = None
    status: int | None = None

    @property
    def until(self) -> float:
        """When it may have been begun with, or under way, at the latest."""
        if self.ended is None:
            return inf
        return self.ended if self.status is not None else self.ended + _UNANSWERED


class InFlight:
    """Those of all agents."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._limits = world.config.communications_api.limits
        self._requests: deque[Request] = deque()
        self._served: defaultdict[tuple[Process, str, str], deque[float]] = defaultdict(deque)

    def begin(self, agent_id: str, place: str, *, is_upload: bool) -> Request:
        now, requests = trio.current_time(), self._requests
        while requests and requests[0].until < now - _UNANSWERED:
            requests.popleft()
        request = Request(agent_id, _ROUTES.get(place.partition("?")[0], ""), is_upload, now)
        requests.append(request)
        return request

    def end(self, request: Request, status: int | None, connection: Connection | None) -> None:
        request.ended, request.status = trio.current_time(), status
        if status in (200, 204, 404) and connection is not None and connection.server.process is not None:
            limit = self._limit(request)
            for whose, rate, burst in (
                (request.agent_id, limit.agent_rate, limit.agent_burst),
                ("", limit.rate, limit.burst),
            ):
                if rate and connection.taken is not None:
                    self._note_served((connection.server.process, request.route, whose), connection.taken, rate, burst)

    def _note_served(self, key: tuple[Process, str, str], taken: float, rate: float, burst: int) -> None:
        """Whatever moment each was counted at between its coming and its answer, no rate was exceeded."""
        now, served = trio.current_time(), self._served[key]
        while served and served[0] < now - _LOOKED_AT:
            served.popleft()
        served.append(taken)
        for count, when in enumerate(sorted(served, reverse=True), 1):
            if count > burst + rate * (now - when) + 0.01:
                process, route, whose = key
                raise Violation(
                    "rates", f"{process.name} served {count} of {route} of {whose or 'all'} in {now - when:.2f} s"
                )

    def may_be_too_many(self, request: Request, client: str) -> bool:
        """Whether so many others may have been under way beside it, or begun with before it, at one worker that it is
        refused."""
        if self._world.was_silenced(client, _UNANSWERED):
            return True
        beside = [each for each in self._requests if each is not request and each.until >= request.began]
        of_agent = [each for each in beside if each.agent_id == request.agent_id]
        uploads = [each for each in of_agent if each.is_upload and each.route in _UPLOADS]
        if request.is_upload and request.route in _UPLOADS and len(uploads) >= self._limits.agent_uploads:
            return True
        # Files above their limit are counted as they are sent: all that it asks for may be such.
        files = [each for each in of_agent if each.route == request.route == "files"]
        if self._world.plan.features.route_limits and len(files) >= self._limits.agent_downloads:
            return True
        limit = self._limit(request)
        of_route = [each for each in beside if each.route == request.route]
        if 0 < limit.requests <= len(of_route):
            return True
        if 0 < limit.agent_requests <= sum(each.route == request.route for each in of_agent):
            return True
        taken = [
            each
            for each in self._requests
            if each is not request and each.route == request.route and each.status != 429
        ]
        mine = (each for each in taken if each.agent_id == request.agent_id)
        return _may_exceed(request, taken, limit.rate, limit.burst) or _may_exceed(
            request, mine, limit.agent_rate, limit.agent_burst
        )

    def _limit(self, request: Request) -> RouteLimit:
        limit: RouteLimit = getattr(self._limits.routes, request.route, _NO_LIMIT)
        return limit

    def check_sending(self) -> None:
        """Each second: of how many bodies the engine was given some at a time, by one worker."""
        limit = self._limits.routes.stateless
        for process in (process for node in self._world.nodes for process in node.running):
            for most, sent in (
                (self._limits.agent_uploads, process.most_uploads),
                (limit.agent_requests, process.most_of_agent),
                (limit.requests, process.most_sent),
            ):
                if 0 < most < sent:
                    raise Violation("at once", f"{process.name} took {sent} bodies at once, of which {most} may be")


def _may_exceed(request: Request, others: Iterable[Request], rate: float, burst: int) -> bool:
    """Whether a rate may be exceeded with this one, if each came as late as it can have."""
    if not rate:
        return False
    latest = sorted((min(each.until, request.began) for each in others), reverse=True)
    return any(count > burst + rate * (request.began - when) - 1 for count, when in enumerate(latest, 1))
