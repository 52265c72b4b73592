"""The agents' API as one ASGI application."""

from __future__ import annotations

from wazuh_comms_trio.api.agent_api.authentication import add_authentication
from wazuh_comms_trio.api.agent_api.base import AgentApi
from wazuh_comms_trio.api.agent_api.commands import add_commands
from wazuh_comms_trio.api.agent_api.files import add_files
from wazuh_comms_trio.api.agent_api.readiness import add_readiness
from wazuh_comms_trio.api.agent_api.stateful import add_stateful
from wazuh_comms_trio.api.agent_api.stateless import add_stateless
from wazuh_comms_trio.api.agent_api.vulnerability import add_vulnerability
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.services import Services

__all__ = ["create_app"]


def create_app(services: Services, config: CommunicationsApi) -> AgentApi:
    """The application of the agents' listeners. It needs no lifespan events."""
    api = AgentApi(services, config)
    add_readiness(api)
    add_authentication(api)
    add_commands(api)
    add_stateless(api)
    add_stateful(api)
    add_files(api)
    add_vulnerability(api)
    return api
