"""What the endpoints of the agents' API share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from wazuh_comms_trio.api.admission import RouteGate, TransferGate
from wazuh_comms_trio.api.guard import identify
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.api.quart_application import QuartApplication
from wazuh_comms_trio.config.capacity import budget_bytes
from wazuh_comms_trio.config.limits.in_force import limits_in_force, routes_of
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.foundation.resources import memory_limit
from wazuh_comms_trio.http.server.bodies import BodyBudget, Spill, content_length
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.services import Services
from wazuh_comms_trio.services.authentication.authenticator import Caller

__all__ = ["PREFIX", "AgentApi"]

PREFIX: Final = "/api/v1"

#: Larger bodies, and those of unknown length, are uploads, and larger files downloads. An agent has a few at a time.
TRANSFER_BYTES: Final = 1024 * 1024
#: How many of the largest bodies may lie on disk at once while they come and are read.
SPILLED_BODIES: Final = 20


class AgentApi(QuartApplication):
    """The application, for its endpoints to be added to."""

    def __init__(self, services: Services, config: CommunicationsApi) -> None:
        super().__init__(
            __name__,
            describe,
            config.limits,
            budget_bytes=budget_bytes(config, memory_limit()),
            no_room=lambda: services.refusals.refused("bodies without room"),
            ended=services.refusals.refused,
        )
        self.services = services
        self.timeouts = config.timeouts
        #: A client's certificate has to name the agent that it speaks for.
        self.own_certificate = config.ssl.client_identity == "uuid"
        limits = limits_in_force(config.limits)
        self._gates = {name: RouteGate(name, limit, services.refusals) for name, limit in routes_of(limits)}
        #: Large stateful bodies lie there while they are read.
        self.spill = Spill(
            config.quarantine.path or config.embedded.path,
            BodyBudget(
                SPILLED_BODIES * config.limits.body_bytes,
                no_room=self.body_budget.no_room,
                ended=self.body_budget.ended,
            ),
        )
        self._uploads = TransferGate("uploads", limits.agent_uploads, services.refusals)
        self._downloads = TransferGate("downloads", limits.agent_downloads, services.refusals)

    async def identify(self, scope: Scope) -> Caller:
        """The caller by its bearer token: see ``guard.identify``."""
        return await identify(
            scope,
            self.services.authentication,
            time_limit=self.timeouts.authentication,
            own_certificate=self.own_certificate,
        )

    def admitted(self, route: str, caller: Caller) -> AbstractContextManager[None]:
        """A request is counted against its route's limits while the block runs: see ``RouteGate.admitted``."""
        return self._gates[route].admitted(caller.agent.id)

    def admitted_body(self, route: str, caller: Caller, scope: Scope) -> AbstractContextManager[None]:
        """As ``admitted``, for a request whose body may be a large one."""
        admitted = self.admitted(route, caller)
        length = content_length(scope)
        if length is not None and length <= TRANSFER_BYTES:
            return admitted
        return _both(self._uploads.admitted(caller.agent.id), admitted)  # what is refused counts for no rate

    def admitted_file(self, caller: Caller, size: int) -> AbstractContextManager[None]:
        """A file of so many bytes is counted against its agent's limit while the block runs."""
        return self._downloads.admitted(caller.agent.id) if size > TRANSFER_BYTES else nullcontext()


@contextmanager
def _both(first: AbstractContextManager[None], second: AbstractContextManager[None]) -> Iterator[None]:
    with first, second:
        yield
