"""What several nodes heard of one agent, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wazuh_comms_trio.services.agent_journal import about_of, merged

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.presence import NodeNews
    from wazuh_comms_trio.config.models import Config

__all__ = ["all_news", "own_node_id"]


def own_node_id(config: Config) -> str:
    """The id by which the daemon of this configuration is known to others (``backend: wazuh``)."""
    from wazuh_comms_trio.backends.local_node import LocalNode

    api = config.communications_api
    return LocalNode.of(api.port, str(api.command_socket), "").id


def all_news(
    own: Mapping[str, Any] | None, stored: Sequence[NodeNews], own_id: str
) -> tuple[dict[str, Any], Sequence[str]]:
    """As ``services.agent_journal.merged``, and the names of the other nodes that said anything. ``own``: what this
    node's daemon says, None where it can't be asked. What this node has stored adds what the daemon said before its
    start; of the same moment the daemon's own words count. Pure."""
    documents: list[Mapping[str, Any]] = [] if own is None else [own]
    names = []
    for news in stored:
        about = about_of(news.news)
        if news.node_id != own_id and (about["channels"] or about["addresses"]):
            names.append(news.node)
            about["channels"] = {
                name: {kind: {**found, "node": news.node} for kind, found in kinds.items()}
                for name, kinds in about["channels"].items()
            }
        documents.append(about)
    return (merged(documents) if documents and any(documents) else {}), sorted(names)
