"""The keys that sign this node's tokens, as its supervisor hands them from one generation of workers to the next, and
over a restart."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import trio
from attrs import define

from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.daemon.key_files import signing_public_key
from wazuh_comms_trio.daemon.remembered_keys import SIGNS_HERE, KeyMemory
from wazuh_comms_trio.daemon.supervisor.hub import Hub

__all__ = ["NodeKeys"]


@define(eq=False)
class NodeKeys:
    """The node's keys over generations and restarts. Reads and writes in threads."""

    memory: KeyMemory
    hub: Hub

    async def before_generation(
        self, settings: CommunicationsApi, key_files: Mapping[str, str]
    ) -> Sequence[tuple[str, float]]:
        """Public keys (PEM) that signed before, each with the moment, on trio's clock, until which a generation with
        these files trusts them. All workers of others trust what it will sign with."""
        known = await trio.to_thread.run_sync(self.memory.read)
        self.hub.revoke_keys(known.revoked)
        public_key = await trio.to_thread.run_sync(signing_public_key, settings, key_files)
        if public_key is not None:
            self.hub.trust_key(public_key)
        now = trio.current_time()
        return [(pem, now + seconds) for pem, seconds in known.seconds_left(time.time()).items()]

    async def signed_by(self, public_key: str | None) -> None:
        """A generation serves that signs with this key (PEM)."""
        if public_key is not None:
            await trio.to_thread.run_sync(self.memory.note_signing, public_key)

    async def revoke(self, key_id: str) -> dict[str, Any]:
        """Ends what this key's tokens can do, on this node. ``revoked``, and if not ``problem`` says why; ``kept``: it
        stays so after a restart."""
        if any(signing_key(member.report) == key_id for member in self.hub.members):
            return {"revoked": False, "problem": SIGNS_HERE}
        since = {key_id: round(time.time(), 3)}
        kept = await trio.to_thread.run_sync(partial(self.memory.revoke, since))
        self.hub.revoke_keys(since)
        return {"revoked": True, "kept": kept}


def signing_key(report: Mapping[str, Any]) -> str | None:
    """The id of the key that a worker signs with, by its report; None: it doesn't say."""
    keys = report.get("keys")
    return keys.get("signing") if isinstance(keys, dict) else None
