"""What a daemon does so that the others on its cluster know of it, and what it finds out about them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import trio

from wazuh_comms_trio.backends.leadership import Leadership
from wazuh_comms_trio.backends.local_node import OWN_KEY_REVOKED, LocalNode
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient, path
from wazuh_comms_trio.backends.opensearch.cluster_state import IndexerState, about_disks, look_at_indexer
from wazuh_comms_trio.backends.opensearch.index_names import IndexName
from wazuh_comms_trio.backends.opensearch.node_differences import about_clocks, about_files, about_keys, shares_of
from wazuh_comms_trio.backends.opensearch.node_registry import (
    INDEX,
    UPDATE,
    had_registry,
    known_nodes,
    make_index,
    revoked_keys,
)
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.foundation.aligned_timer import sleep_until_next_tick
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery
from wazuh_comms_trio.foundation.outage_log import WarningLog

__all__ = ["NodeWatch"]

logger = logging.getLogger(__name__)

#: Seconds between two signs of life.
_INTERVAL: Final = 60.0
_RETRY: Final = 10.0
_FILES_WITHIN: Final = 20.0
#: Seconds between two looks at what was revoked: one document, read by its id.
_REVOKED_INTERVAL: Final = 5.0
_TOPIC: Final = "revoked-keys"


class NodeWatch:
    """One of a node's processes, its leader, registers the node, looks at the others and at what was revoked, and tells
    the other processes. Remembers, for nodes that start later, that there was a ``registry``."""

    def __init__(
        self,
        client: OpenSearchClient,
        node: LocalNode,
        wall_clock: Callable[[], float],
        registry: IndexName | None = None,
        leadership: Leadership | None = None,
    ) -> None:
        self._registry = registry
        self._client = client
        self._node = node
        self._now = wall_clock
        self._leadership = leadership or Leadership()
        self._log = WarningLog(logger)
        self._again = trio.Event()
        #: Of the last look: which keys were good here.
        self._published: Sequence[str] = ()
        self._revoked: dict[str, float] = {}
        self._differed: set[str] = set()
        self._may_look = True
        self._ahead: float | None = None
        self._leadership.register(_TOPIC, on_finding=self._on_finding)

    async def run(self) -> None:
        """Looks now and then, until cancelled. Without the right to keep an index of our own there is no warning."""
        async with BackgroundNursery() as nursery:
            nursery.start_soon(self._watch_revoked)
            await self._register()

    async def _register(self) -> None:
        while True:
            if not self._leadership.is_leader:
                self._node.warnings.clear()  # the leader says them
                await self._leadership.wait_until_leader()
            self._again = trio.Event()
            try:
                await self.look()
                pause = _INTERVAL
            except IndexerUnavailable as exc:
                if exc.reply is not None and exc.reply.status == 403:
                    logger.info("token keys of other nodes can't be compared: %s", exc)
                    return
                pause = _RETRY
            except BackendUnavailable:
                pause = _RETRY
            except Exception:
                logger.exception("token keys of other nodes can't be compared: an error of ours")
                pause = _INTERVAL
            with trio.move_on_after(pause):
                await self._again.wait()

    async def look(self) -> None:
        """Looks at the other nodes. Raises ``BackendUnavailable``."""
        await make_index(self._client)
        self._published = list(self._node.accepted()) or [self._node.key]
        files = None
        with trio.move_on_after(
            _FILES_WITHIN
        ):  # else a file system hangs: which mustn't keep the node from being known
            files = await self._node.files()
        own: dict[str, Any] = {
            "name": self._node.name,
            "key": self._node.key,
            "accepts": self._published,
            **({} if files is None else {"files": shares_of(files)}),
            "clock": self._ahead,
            "seen": round(self._now() * 1000),
        }
        if self._registry is not None and self._registry.is_known:
            own["registry"] = True  # and it stays, whatever becomes of the registry
        body = {"doc": own, "doc_as_upsert": True}
        await self._client.json("POST", path(INDEX, "_update", self._node.id), body, query=UPDATE)
        others = [node for node in await known_nodes(self._client, self._now()) if node.id != self._node.id]
        warnings = self._node.warnings
        warnings["keys"] = about_keys(self._node.key, self._published, others)
        if files is not None:
            warnings["files"] = self._that_lasts(about_files(files, others))
        # After that: on a large cluster it takes its time. What the clock is goes out with the next sign of life.
        indexer = await self._look_at_indexer()
        self._ahead = None if indexer is None else indexer.ahead
        warnings["clock"] = about_clocks(self._now(), self._ahead, others)
        warnings["indexer_disk"] = {} if indexer is None else about_disks(indexer)
        self._tell()

    async def _look_at_indexer(self) -> IndexerState | None:
        if not self._may_look:
            return None
        try:
            found = await look_at_indexer(self._client, self._now)
        except BackendUnavailable:
            return None  # which mustn't keep the node from being known
        if found is None:
            self._may_look = False
            logger.info("the indexer's clocks and disks can't be looked at: the account lacks cluster_monitor")
        return found

    def _that_lasts(self, differences: dict[str, str]) -> dict[str, str]:
        """The differences that were there at the look before, too: files that are being copied to all nodes differ for
        a while."""
        lasting = {name: text for name, text in differences.items() if name in self._differed}
        self._differed = set(differences)
        return lasting

    async def had_registry(self) -> bool:
        """``had_registry`` of our cluster."""
        return await had_registry(self._client)

    def _tell(self) -> None:
        found = {}
        for kind, sentences in self._node.warnings.items():
            for about, sentence in sentences.items():
                found[f"{kind} ({about})"] = [sentence]
        self._log.tell(found)

    # --- keys that were revoked

    def _on_finding(self, finding: Mapping[str, Any]) -> None:
        self._node.revoke({str(key): float(since) for key, since in finding["revoked"].items()})

    async def _watch_revoked(self) -> None:
        while True:
            await self._leadership.wait_until_leader()
            try:
                await self.look_for_revoked()
            except BackendUnavailable:
                pass  # others say so, and what was revoked before stays so
            except Exception:
                logger.exception("which keys were revoked can't be read: an error of ours")
            await sleep_until_next_tick(_REVOKED_INTERVAL)

    async def look_for_revoked(self) -> None:
        """Raises ``BackendUnavailable``."""
        revoked = await revoked_keys(self._client)
        if self._node.key in revoked:
            self._node.warnings["revoked"] = {"this node": OWN_KEY_REVOKED}
            self._tell()
        if revoked != self._revoked:
            self._node.revoke(revoked)
            self._leadership.publish(_TOPIC, {"revoked": revoked})
            await self._node.keep_revoked(revoked)
            self._revoked = revoked
        if self._published and list(self._node.accepted()) != list(self._published):
            self._again.set()  # the others, and whoever revoked, are to know soon
