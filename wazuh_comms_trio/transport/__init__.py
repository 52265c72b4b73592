"""Sockets and queues to a Wazuh server's daemons, for plain and for trio programs.

Nothing is imported before it is asked for: a program that uses the blocking classes alone never imports trio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wazuh_comms_trio.errors import (
        AnswerCut,
        AnswerInvalid,
        BacklogFull,
        EmptyFrame,
        EventTooLarge,
        FrameError,
        FrameTooLarge,
        PayloadTooLarge,
        PeerClosed,
        QueueTimeout,
        SendSyncError,
        SocketTimeout,
        TruncatedFrame,
        WazuhError,
        WazuhException,
        WazuhInternalError,
    )
    from wazuh_comms_trio.transport.async_datagram import (
        BaseAsyncQueue,
        WazuhAsyncAnalysisdQueue,
        WazuhAsyncQueue,
    )
    from wazuh_comms_trio.transport.async_protocol import (
        ConnectionState,
        Exchange,
        ProtocolStatistics,
        WazuhAsyncProtocol,
    )
    from wazuh_comms_trio.transport.async_socket import (
        WazuhAsyncSocket,
        WazuhAsyncSocketJSON,
    )
    from wazuh_comms_trio.transport.datagram import (
        BaseQueue,
        WazuhAnalysisdQueue,
        WazuhQueue,
    )
    from wazuh_comms_trio.transport.errors import (
        QueueBroken,
        QueueClosed,
        TransportBroken,
        TransportClosed,
        TransportEmptyFrame,
        TransportError,
        TransportFrameTooLarge,
        TransportPeerClosed,
        TransportTruncatedFrame,
        TrioOnly,
    )
    from wazuh_comms_trio.transport.paths import (
        PeerCredentials,
        check_path,
    )
    from wazuh_comms_trio.transport.registry import (
        ANALYSISD_QUEUE,
        AR_QUEUE,
        EXECQ_QUEUE,
        HOME,
        Daemon,
        DaemonEntry,
        daemons,
        daemons_under,
        get_daemon,
        register_daemon,
    )
    from wazuh_comms_trio.transport.send import (
        wazuh_sendasync,
        wazuh_sendsync,
    )
    from wazuh_comms_trio.transport.sync_socket import (
        WazuhSocket,
        WazuhSocketJSON,
    )
    from wazuh_comms_trio.wire.agent_command import (
        create_wazuh_queue_socket_msg,
    )
    from wazuh_comms_trio.wire.envelope import (
        SOCKET_COMMUNICATION_PROTOCOL_VERSION,
        create_wazuh_socket_message,
    )
    from wazuh_comms_trio.wire.event import (
        create_event_header,
        escape_location,
    )

#: public name -> the module that has it
_HOMES = {
    "ANALYSISD_QUEUE": "transport.registry",
    "AR_QUEUE": "transport.registry",
    "AnswerCut": "errors",
    "AnswerInvalid": "errors",
    "BacklogFull": "errors",
    "BaseAsyncQueue": "transport.async_datagram",
    "BaseQueue": "transport.datagram",
    "ConnectionState": "transport.async_protocol",
    "Daemon": "transport.registry",
    "DaemonEntry": "transport.registry",
    "EXECQ_QUEUE": "transport.registry",
    "EmptyFrame": "errors",
    "EventTooLarge": "errors",
    "Exchange": "transport.async_protocol",
    "FrameError": "errors",
    "FrameTooLarge": "errors",
    "HOME": "transport.registry",
    "PayloadTooLarge": "errors",
    "PeerClosed": "errors",
    "PeerCredentials": "transport.paths",
    "ProtocolStatistics": "transport.async_protocol",
    "QueueBroken": "transport.errors",
    "QueueClosed": "transport.errors",
    "QueueTimeout": "errors",
    "SOCKET_COMMUNICATION_PROTOCOL_VERSION": "wire.envelope",
    "SendSyncError": "errors",
    "SocketTimeout": "errors",
    "TransportBroken": "transport.errors",
    "TransportClosed": "transport.errors",
    "TransportEmptyFrame": "transport.errors",
    "TransportError": "transport.errors",
    "TransportFrameTooLarge": "transport.errors",
    "TransportPeerClosed": "transport.errors",
    "TransportTruncatedFrame": "transport.errors",
    "TrioOnly": "transport.errors",
    "TruncatedFrame": "errors",
    "WazuhAnalysisdQueue": "transport.datagram",
    "WazuhAsyncAnalysisdQueue": "transport.async_datagram",
    "WazuhAsyncProtocol": "transport.async_protocol",
    "WazuhAsyncQueue": "transport.async_datagram",
    "WazuhAsyncSocket": "transport.async_socket",
    "WazuhAsyncSocketJSON": "transport.async_socket",
    "WazuhError": "errors",
    "WazuhException": "errors",
    "WazuhInternalError": "errors",
    "WazuhQueue": "transport.datagram",
    "WazuhSocket": "transport.sync_socket",
    "WazuhSocketJSON": "transport.sync_socket",
    "check_path": "transport.paths",
    "create_event_header": "wire.event",
    "create_wazuh_queue_socket_msg": "wire.agent_command",
    "create_wazuh_socket_message": "wire.envelope",
    "daemons": "transport.registry",
    "daemons_under": "transport.registry",
    "escape_location": "wire.event",
    "get_daemon": "transport.registry",
    "register_daemon": "transport.registry",
    "wazuh_sendasync": "transport.send",
    "wazuh_sendsync": "transport.send",
}

__all__ = [
    "ANALYSISD_QUEUE",
    "AR_QUEUE",
    "EXECQ_QUEUE",
    "HOME",
    "SOCKET_COMMUNICATION_PROTOCOL_VERSION",
    "AnswerCut",
    "AnswerInvalid",
    "BacklogFull",
    "BaseAsyncQueue",
    "BaseQueue",
    "ConnectionState",
    "Daemon",
    "DaemonEntry",
    "EmptyFrame",
    "EventTooLarge",
    "Exchange",
    "FrameError",
    "FrameTooLarge",
    "PayloadTooLarge",
    "PeerClosed",
    "PeerCredentials",
    "ProtocolStatistics",
    "QueueBroken",
    "QueueClosed",
    "QueueTimeout",
    "SendSyncError",
    "SocketTimeout",
    "TransportBroken",
    "TransportClosed",
    "TransportEmptyFrame",
    "TransportError",
    "TransportFrameTooLarge",
    "TransportPeerClosed",
    "TransportTruncatedFrame",
    "TrioOnly",
    "TruncatedFrame",
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
    "check_path",
    "create_event_header",
    "create_wazuh_queue_socket_msg",
    "create_wazuh_socket_message",
    "daemons",
    "daemons_under",
    "escape_location",
    "get_daemon",
    "register_daemon",
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
