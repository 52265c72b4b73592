"""What the endpoints of the agents' API share."""

from __future__ import annotations

from typing import Final

from wazuh_comms_trio.api.guard import identify
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.api.quart_application import QuartApplication
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.services import Services
from wazuh_comms_trio.services.authentication.authenticator import Caller

__all__ = ["PREFIX", "AgentApi"]

PREFIX: Final = "/api/v1"

#: What all collected bodies may take together: five of the largest (or 512 MiB), or five hundred of 1 MB, which
#: agents' full batches are. Two cores parse about 100 MB/s, so what fits in is at most some seconds' work.
BUDGET_BYTES: Final = 512 * 1024 * 1024
BUDGET_LARGEST: Final = 5


class AgentApi(QuartApplication):
    """The application, for its endpoints to be added to."""

    def __init__(self, services: Services, config: CommunicationsApi) -> None:
        budget_bytes = max(BUDGET_BYTES, BUDGET_LARGEST * config.limits.body_bytes)
        super().__init__(__name__, describe, config.limits, budget_bytes=budget_bytes)
        self.services = services
        self.timeouts = config.timeouts

    async def identify(self, scope: Scope) -> Caller:
        """The caller by its bearer token: see ``guard.identify``."""
        return await identify(scope, self.services.authentication, time_limit=self.timeouts.authentication)
