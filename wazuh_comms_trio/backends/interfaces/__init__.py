"""What stands behind the daemon, as Protocols. Services and the APIs know these and never a store.

Every implementation passes the same contract suite (tests/contract/). Rules that hold for all of them:

* ``BackendUnavailable`` (and its subclasses) means a *passing* failure: nothing was promised, the same call may succeed
  later.
* A call that is cancelled may have happened all the same. Marks, claims and writes are therefore idempotent.
* A write that returned is durable: it survives ``kill -9`` and, for embedded stores, a power cut (fsync).
* Times are epoch seconds (float, UTC) from the injected wall clock.
"""

from __future__ import annotations

from wazuh_comms_trio.backends.interfaces.agents import Agent, AgentRegistry
from wazuh_comms_trio.backends.interfaces.backends import Backends
from wazuh_comms_trio.backends.interfaces.commands import (
    Action,
    Command,
    CommandReport,
    CommandResult,
    CommandStatus,
    CommandStore,
    Target,
)
from wazuh_comms_trio.backends.interfaces.engine import BodyRefused, ConsumedBody, Engine, EngineReply
from wazuh_comms_trio.backends.interfaces.events import DocumentOperation, EventIndex, ItemResult, Outcome
from wazuh_comms_trio.backends.interfaces.files import FileStore, StoredFile

__all__ = [
    "Action",
    "Agent",
    "AgentRegistry",
    "Backends",
    "BodyRefused",
    "Command",
    "CommandReport",
    "CommandResult",
    "CommandStatus",
    "CommandStore",
    "ConsumedBody",
    "DocumentOperation",
    "Engine",
    "EngineReply",
    "EventIndex",
    "FileStore",
    "ItemResult",
    "Outcome",
    "StoredFile",
    "Target",
]
