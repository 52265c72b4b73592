"""One set of backends."""

from __future__ import annotations

from attrs import frozen

from wazuh_comms_trio.backends.interfaces.agents import AgentRegistry
from wazuh_comms_trio.backends.interfaces.commands import CommandStore
from wazuh_comms_trio.backends.interfaces.engine import Engine
from wazuh_comms_trio.backends.interfaces.events import EventIndex
from wazuh_comms_trio.backends.interfaces.files import FileStore
from wazuh_comms_trio.backends.presence import PresenceStore

__all__ = ["Backends"]


@frozen
class Backends:
    """What ``open_backends`` opens and the worker's tree is built on."""

    agents: AgentRegistry
    events: EventIndex
    commands: CommandStore
    engine: Engine
    files: FileStore
    presence: PresenceStore
