"""The agent journal hears of a request by its channel, the kind of request that it is."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from wazuh_comms_trio.api.agent_api.base import PREFIX
from wazuh_comms_trio.services.agent_journal import AgentJournal

__all__ = ["note_reply"]

_CHANNELS: Final = {
    f"{PREFIX}/commands": "poll",
    f"{PREFIX}/events/stateless": "stateless",
    f"{PREFIX}/events/stateful": "stateful",
    f"{PREFIX}/files": "files",
}


def note_reply(journal: AgentJournal, agent_id: str, path: str, status: int, address: str | None) -> None:
    """Notes a request of an agent in the journal, by the status that it was answered with. A poll that ends with 408 is
    one that nothing came for."""
    channel = _CHANNELS.get(path)
    if channel is None:
        return
    if status < 400 or (channel == "poll" and status == 408):
        journal.heard(agent_id, channel, address)
    else:
        journal.refused(agent_id, channel, address, f"{status} {HTTPStatus(status).phrase}")
