"""The communications layer of a Wazuh server on trio. The transport library's classes and the errors, imported when
used.

Everything else is in the subpackages: :mod:`wazuh_comms_trio.transport` has all of the library's names,
:mod:`wazuh_comms_trio.testing` fakes to test programs with.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wazuh_comms_trio.errors import WazuhError, WazuhException, WazuhInternalError
    from wazuh_comms_trio.transport.aio.datagram import WazuhAsyncAnalysisdQueue, WazuhAsyncQueue
    from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol
    from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket, WazuhAsyncSocketJSON
    from wazuh_comms_trio.transport.blocking.datagram import BaseQueue, WazuhAnalysisdQueue, WazuhQueue
    from wazuh_comms_trio.transport.blocking.socket import WazuhSocket, WazuhSocketJSON
    from wazuh_comms_trio.transport.registry import daemons
    from wazuh_comms_trio.transport.send import wazuh_sendasync, wazuh_sendsync
    from wazuh_comms_trio.wire.agent_command import create_wazuh_queue_socket_msg
    from wazuh_comms_trio.wire.envelope import SOCKET_COMMUNICATION_PROTOCOL_VERSION, create_wazuh_socket_message

#: public name -> the module that has it
_HOMES = {
    "BaseQueue": "transport.blocking.datagram",
    "SOCKET_COMMUNICATION_PROTOCOL_VERSION": "wire.envelope",
    "WazuhAnalysisdQueue": "transport.blocking.datagram",
    "WazuhAsyncAnalysisdQueue": "transport.aio.datagram",
    "WazuhAsyncProtocol": "transport.aio.protocol",
    "WazuhAsyncQueue": "transport.aio.datagram",
    "WazuhAsyncSocket": "transport.aio.socket",
    "WazuhAsyncSocketJSON": "transport.aio.socket",
    "WazuhError": "errors",
    "WazuhException": "errors",
    "WazuhInternalError": "errors",
    "WazuhQueue": "transport.blocking.datagram",
    "WazuhSocket": "transport.blocking.socket",
    "WazuhSocketJSON": "transport.blocking.socket",
    "create_wazuh_queue_socket_msg": "wire.agent_command",
    "create_wazuh_socket_message": "wire.envelope",
    "daemons": "transport.registry",
    "wazuh_sendasync": "transport.send",
    "wazuh_sendsync": "transport.send",
}

__all__ = [
    "SOCKET_COMMUNICATION_PROTOCOL_VERSION",
    "BaseQueue",
    "WazuhAnalysisdQueue",
    "WazuhAsyncAnalysisdQueue",
    "WazuhAsyncProtocol",
    "WazuhAsyncQueue",
    "WazuhAsyncSocket",
    "WazuhAsyncSocketJSON",
    "WazuhError",
    "WazuhException",
    "WazuhInternalError",
    "WazuhQueue",
    "WazuhSocket",
    "WazuhSocketJSON",
    "create_wazuh_queue_socket_msg",
    "create_wazuh_socket_message",
    "daemons",
    "wazuh_sendasync",
    "wazuh_sendsync",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"wazuh_comms_trio.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
