"""What this node's files say of its keys, what is in force in its daemon, and what the other nodes say of theirs."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from wazuh_comms_trio.cli.command_socket import EXIT_NOT_RUNNING, ask_daemon
from wazuh_comms_trio.cli.output import timestamp
from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.cli.stores import Session
from wazuh_comms_trio.config.check import FileProblem, public_half, read_next_key, read_public_key, signing_key
from wazuh_comms_trio.daemon.remembered_keys import KeyMemory, node_folder
from wazuh_comms_trio.services.authentication.tokens import TokenKeyError, key_id

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.opensearch.node_registry import KnownNode
    from wazuh_comms_trio.config.models import CommunicationsApi, Config
    from wazuh_comms_trio.daemon.status import TokenKeysReport

__all__ = ["OwnKey", "keys_in_force", "nodes_keys", "own_keys", "signing_pem"]

_STATUS_TIMEOUT: Final = 5.0


@frozen
class OwnKey:
    """``use``: ``signs``, ``next``, ``trusted`` (``token.verify_keys``), ``earlier`` (until a moment, epoch seconds) or
    ``revoked``."""

    id: str
    use: str
    until: float | None = None

    def document(self, in_force: TokenKeysReport | None) -> dict[str, Any]:
        return {
            "key": self.id,
            "use": self.use,
            "until": timestamp(self.until),
            "in_force": self._is_in_force(in_force),
        }

    def _is_in_force(self, report: TokenKeysReport | None) -> bool | None:
        if report is None:
            return None
        if self.use == "signs":
            return report.signing == self.id
        return self.id in (report.revoked if self.use == "revoked" else report.accepted)


def signing_pem(api: CommunicationsApi) -> bytes:
    """The public half of the key that signs, in PEM. Raises ``Failure``."""
    file, password = signing_key(api)
    try:
        return public_half(file.read_bytes(), password)
    except OSError as error:
        raise Failure(f"{file} can't be read: {error.strerror}") from error
    except FileProblem as problem:
        raise Failure(f"{file} {problem}") from problem


def own_keys(session: Session) -> list[OwnKey]:
    """The node's keys by its files: what the daemon has once it was reloaded. Raises ``Failure`` where they can't be
    read."""
    api = session.config.communications_api
    signing = key_id(signing_pem(api))
    with session.acting_as_owner(node_folder(api)):
        remembered = KeyMemory(node_folder(api)).read()
    found = {signing: OwnKey(signing, "signs")}
    if (following := read_next_key(api.token)) is not None:
        found.setdefault(kid := key_id(following[1]), OwnKey(kid, "next"))
    for kid in _verify_keys(api.token.verify_keys):
        found.setdefault(kid, OwnKey(kid, "trusted"))
    for pem, until in remembered.earlier.items():
        earlier = _id_of(pem)
        if earlier is not None and until > time.time():
            found.setdefault(earlier, OwnKey(earlier, "earlier", until))
    for kid in remembered.revoked:
        if kid != signing:
            found[kid] = OwnKey(kid, "revoked")
    return list(found.values())


def _verify_keys(files: tuple[Path, ...]) -> Iterator[str]:
    for file in files:
        try:
            yield key_id(read_public_key(file))
        except FileProblem as problem:
            raise Failure(f"{file} {problem}") from problem


def _id_of(pem: str) -> str | None:
    try:
        return key_id(pem.encode())
    except TokenKeyError:
        return None


def keys_in_force(arguments: Namespace) -> TokenKeysReport | None:
    """The keys that all workers of the daemon's newest generation have; None: it doesn't run. Raises ``Failure``."""
    from wazuh_comms_trio.daemon.status import TokenKeysReport, read_status

    try:
        status = read_status(ask_daemon(arguments, "GET", "/api/v1/status", _STATUS_TIMEOUT))
    except Failure as failure:
        if failure.status == EXIT_NOT_RUNNING:
            return None
        raise
    except ValueError as error:
        raise Failure(f"the daemon's status isn't understood: {error}") from error
    reports = [
        worker.keys
        for worker in status.workers
        if worker.generation == status.generation and worker.state == "serving" and worker.keys is not None
    ]
    if not reports:
        raise Failure("no worker says which keys it has: it is of an earlier version, or none serves")
    accepted = [kid for kid in reports[0].accepted if all(kid in report.accepted for report in reports)]
    revoked = [kid for kid in reports[0].revoked if all(kid in report.revoked for report in reports)]
    return TokenKeysReport(signing=reports[0].signing, accepted=accepted, revoked=revoked)


async def nodes_keys(config: Config) -> list[KnownNode]:
    """The keys of the nodes on the indexer that gave a sign of life of late. Raises ``Failure``."""
    from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
    from wazuh_comms_trio.backends.opensearch.client.credentials import AccessError
    from wazuh_comms_trio.backends.opensearch.node_registry import known_nodes
    from wazuh_comms_trio.errors import BackendUnavailable

    try:
        async with OpenSearchClient(config.indexer) as client:
            return await known_nodes(client, time.time())
    except (BackendUnavailable, AccessError) as error:
        raise Failure(f"the indexer: {error}") from error
