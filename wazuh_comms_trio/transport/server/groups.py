"""An agent's groups where wazuh-db has no HTTP yet."""

from __future__ import annotations

from wazuh_comms_trio.errors import AnswerInvalid
from wazuh_comms_trio.transport.server.call import DaemonCall
from wazuh_comms_trio.wire.text_rules import check_agent_id
from wazuh_comms_trio.wire.wdb import parse_reply


def groups_of(agent_id: str) -> DaemonCall[list[str]]:
    """The names of an agent's groups by priority; of an agent that isn't there, none. Every release."""
    request = f"global get-agent-info {int(check_agent_id(agent_id))}".encode()

    def decode(answer: bytes) -> list[str]:
        rows = parse_reply(answer).rows()
        groups = rows[0].get("group", "") if rows else ""
        if not isinstance(groups, str):
            raise AnswerInvalid(1014, f"an agent's groups are text, not {groups!r:.60}")
        return [name for name in groups.split(",") if name]

    return DaemonCall("groups_of", "wazuh-db", lambda release: request, decode, repeatable=True)
