"""The end of a key's tokens, on this node and, through the indexer, on all."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Final

import trio

from wazuh_comms_trio.cli.command_socket import EXIT_NOT_RUNNING, ask_daemon
from wazuh_comms_trio.cli.keys.node import nodes_keys, own_keys
from wazuh_comms_trio.cli.output import Output
from wazuh_comms_trio.cli.program import EXIT_FAILED, Failure
from wazuh_comms_trio.cli.stores import Session, open_session
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.remembered_keys import SIGNS_HERE, KeyMemory, node_folder

__all__ = ["revoke"]

_TIMEOUT: Final = 15.0
#: Seconds in which the other nodes have seen it, looking every five.
_SEEN_WITHIN: Final = 15.0
_LOOK: Final = 0.5


async def revoke(arguments: Namespace) -> int:
    session = open_session(arguments)
    kid = arguments.key
    notes = _revoke_here(arguments, session, kid)
    behind: list[str] = []
    if session.config.communications_api.backend == "wazuh":
        await _publish(session.config, kid)
        behind = await _wait_for_others(session.config, kid)
        notes += [f"{name} still trusts it, or has just stopped" for name in behind]
        text = "It is revoked on all nodes." if not behind else "It is revoked on this node, and not on all."
    else:
        text = "It is revoked on this node. Run the same on every other one."
    if any(key.id == kid for key in own_keys(session) if key.use in ("next", "trusted")):
        notes.append("It is still in token.verify_keys, or the next key: take it out there")
    document = {"key": kid, "nodes_behind": behind, "notes": notes}
    Output(as_json=arguments.json).document(document, "\n".join([text, *notes]))
    return EXIT_FAILED if behind else 0


def _revoke_here(arguments: Namespace, session: Session, kid: str) -> list[str]:
    """Revokes the key on this node; notes for the operator. Raises ``Failure``."""
    try:
        outcome = ask_daemon(arguments, "POST", f"/api/v1/keys/revoke?key={kid}", _TIMEOUT)
    except Failure as failure:
        if failure.status != EXIT_NOT_RUNNING:
            raise
    else:
        if not outcome["revoked"]:
            raise Failure(outcome["problem"])
        return [] if outcome["kept"] else ["It can't be written to the state folder: a restart forgets it there"]
    if any(key.id == kid and key.use == "signs" for key in own_keys(session)):
        raise Failure(SIGNS_HERE)
    folder = node_folder(session.config.communications_api)
    with session.acting_as_owner(folder):
        session.prepare_change()
        if not KeyMemory(folder).revoke({kid: time.time()}):
            raise Failure(f"{folder} can't be written to")
        session.changed("keys revoke", kid)
    return ["The daemon doesn't run: it will know when it starts"]


async def _publish(config: Config, kid: str) -> None:
    """Revokes the key for all nodes. Raises ``Failure``."""
    from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
    from wazuh_comms_trio.backends.opensearch.client.credentials import AccessError
    from wazuh_comms_trio.backends.opensearch.node_registry import publish_revoked
    from wazuh_comms_trio.errors import BackendUnavailable

    try:
        async with OpenSearchClient(config.indexer) as client:
            await publish_revoked(client, {kid: time.time()})
    except (BackendUnavailable, AccessError) as error:
        text = "it is revoked on this node, and the others can't be told: run the same there, or again"
        raise Failure(f"{text}: the indexer: {error}") from error


async def _wait_for_others(config: Config, kid: str) -> list[str]:
    """Waits until no other node trusts the key; the names of those that still do: nodes of an earlier version always
    do."""
    until = trio.current_time() + _SEEN_WITHIN
    while True:
        nodes = await nodes_keys(config)
        behind = [node.name for node in nodes if kid == node.key or node.accepts is None or kid in node.accepts]
        if not behind or trio.current_time() >= until:
            return behind
        await trio.sleep(_LOOK)
