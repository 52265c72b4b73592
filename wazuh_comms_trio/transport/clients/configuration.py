"""The configuration that agents and daemons run with now, which may differ from what their files say."""

from __future__ import annotations

from math import inf
from typing import Any, Final

from wazuh_comms_trio.transport.clients.status import ORIGIN, ask_agent, check_word
from wazuh_comms_trio.transport.pool.pool import Pool
from wazuh_comms_trio.wire.envelope import create_wazuh_socket_message
from wazuh_comms_trio.wire.wdb import parse_reply

# Daemons that take the request as text only (SOCKETS.md, 7), besides those that the registry says so of. authd answers
# JSON requests, but not this one.
_TEXT_ONLY: Final = frozenset(
    {
        *("com", "authd", "auth", "monitor", "wmodules"),
        *("agentless", "csyslog", "integrator", "mail", "logcollector", "syscheck"),
    }
)


async def agent_configuration(
    remoted: Pool, agent_id: str, component: str, section: str, *, deadline: float = inf
) -> Any:
    """One section of an agent's active configuration, such as ``("001", "logcollector", "localfile")``, asked of the
    agent through remoted.

    ``NoSuchAgent`` when remoted doesn't know it, ``WazuhError`` 1014 with the agent's text when it has no such section.
    ``deadline`` and cancellation as ``ask_agent``.
    """
    return await ask_agent(remoted, agent_id, component, "getconfig", section, deadline=deadline)


async def daemon_configuration(pool: Pool, section: str) -> Any:
    """One section of a daemon's own active configuration, over a pool of its request socket (``analysis``, ``authd``,
    ``com``, ``remoted``, ``wazuh-db``; opened with ``release=`` also ``monitor``, ``wmodules``). Errors as
    ``Pool.request``, ``WazuhError`` 1014 with the daemon's text where it answers text. Cancelled: the connection is
    given up."""
    check_word(section)
    if pool.daemon.content == "text" or pool.daemon.name in _TEXT_ONLY:
        return parse_reply(await pool.request(f"getconfig {section}".encode())).only().data()
    return await pool.request(create_wazuh_socket_message(dict(ORIGIN), "getconfig", {"section": section}))
