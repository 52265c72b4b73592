"""What modules of the project keep while a process lives. A simulated run begins as a new process does: with none of
it; ``test_module_state`` finds what is missing here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from itertools import count
from typing import Final

__all__ = ["KEPT", "STATE", "reset_modules"]

PACKAGE: Final = "wazuh_comms_trio"
#: What is reset before each run, and how: made anew, or emptied where others have it under names of their own.
STATE: Final[Mapping[str, str]] = {
    "http.server.connection._request_ids": "anew",
    "daemon.supervisor.generation._spawned": "anew",
    "services.metadata._remembered": "anew",
    "backends.embedded.database.log.log_check.open_here": "emptied",
}
_PURE: Final = "a pure function's cache"
_OF_A_TASK: Final = "each task has its own"
_FOR_ALL: Final = "one certificate for all runs, of which no trace has anything"
#: What isn't, and why nothing of a run depends on it.
KEPT: Final[Mapping[str, str]] = {
    "backends.embedded.ndjson.range_checksums._powers": _PURE,
    "backends.opensearch.client.bulk._opening": _PURE,
    "backends.opensearch.client.bulk._plain": _PURE,
    "backends.opensearch.client.bulk.around_id": _PURE,
    "backends.opensearch.events.stored_documents._threads": "trio keeps it for one run",
    "config.accepted.types_of": _PURE,
    "foundation.file_writes.tally": "a count that nothing follows from",
    "foundation.log_context.AGENT": _OF_A_TASK,
    "foundation.log_context.REQUEST": _OF_A_TASK,
    "foundation.log_context.WORKER": _OF_A_TASK,
    "http.server.framing.bodies.NO_BODY": "it has nothing that changes",
    "http.server.hypercorn_protocol.server_header_lines": "the date, by the second: no trace has it",
    "metrics.families.FAMILIES": "all are there once the module is imported",
    "testing.certificates._folder": _FOR_ALL,
    "testing.certificates.throwaway_certificate": _FOR_ALL,
    "testing.node.daemon._hashes": "hashes of keys, by the key",
    "wire.agent_command._prepare": _PURE,
    "wire.event._checked_header": _PURE,
    "wire.framing.header_struct": _PURE,
}


def reset_modules() -> None:
    from wazuh_comms_trio.foundation.caches.bounded_cache import BoundedCache

    for name, how in STATE.items():
        module_name, _, attribute = name.rpartition(".")
        module = import_module(f"{PACKAGE}.{module_name}")
        kept = getattr(module, attribute)
        if how == "emptied":
            kept.clear()
        elif isinstance(kept, count):
            setattr(module, attribute, count(1))
        else:
            assert isinstance(kept, BoundedCache)
            setattr(module, attribute, BoundedCache(module._REMEMBERED))
