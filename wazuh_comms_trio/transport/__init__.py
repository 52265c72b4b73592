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
    from wazuh_comms_trio.transport.aio.datagram import (
        BaseAsyncQueue,
        WazuhAsyncAnalysisdQueue,
        WazuhAsyncQueue,
    )
    from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol
    from wazuh_comms_trio.transport.aio.protocol_client import Exchange
    from wazuh_comms_trio.transport.aio.protocol_connection import ConnectionState, ProtocolStatistics
    from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket, WazuhAsyncSocketJSON
    from wazuh_comms_trio.transport.blocking.datagram import (
        BaseQueue,
        WazuhAnalysisdQueue,
        WazuhQueue,
    )
    from wazuh_comms_trio.transport.blocking.socket import WazuhSocket, WazuhSocketJSON
    from wazuh_comms_trio.transport.clients.active_response import (
        create_active_response,
        create_script_command,
        force_reconnect,
        restart_agents,
        restart_syscheck,
        send_active_response,
        send_command,
    )
    from wazuh_comms_trio.transport.clients.agents import (
        agent_ids,
        agent_info,
        assign_groups,
    )
    from wazuh_comms_trio.transport.clients.authd import (
        EnrolledAgent,
        ForceInsertion,
        add_agent,
        get_agent,
        remove_agent,
    )
    from wazuh_comms_trio.transport.clients.broadcast import (
        BroadcastReport,
        NotReached,
        broadcast,
    )
    from wazuh_comms_trio.transport.clients.configuration import agent_configuration, daemon_configuration
    from wazuh_comms_trio.transport.clients.events import send_event
    from wazuh_comms_trio.transport.clients.status import (
        AgentStatus,
        NoSuchAgent,
        agent_state,
        agent_status,
        agents_stats,
        ask_agent,
        daemon_stats,
    )
    from wazuh_comms_trio.transport.clients.wazuh_db import (
        PageStream,
        RowStream,
        WazuhDB,
        WazuhDBSession,
        open_wazuh_db,
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
    from wazuh_comms_trio.transport.pool.connector import Connect
    from wazuh_comms_trio.transport.pool.pool import (
        Pool,
        PoolStatistics,
        open_pool,
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
    from wazuh_comms_trio.transport.schema import (
        MessageInvalid,
        register_schemas,
        unregister_schemas,
        validate_reply,
        validate_request,
    )
    from wazuh_comms_trio.transport.send import (
        wazuh_sendasync,
        wazuh_sendsync,
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
    "AgentStatus": "transport.clients.status",
    "AnswerCut": "errors",
    "AnswerInvalid": "errors",
    "BacklogFull": "errors",
    "BaseAsyncQueue": "transport.aio.datagram",
    "BaseQueue": "transport.blocking.datagram",
    "BroadcastReport": "transport.clients.broadcast",
    "Connect": "transport.pool.connector",
    "ConnectionState": "transport.aio.protocol_connection",
    "Daemon": "transport.registry",
    "DaemonEntry": "transport.registry",
    "EXECQ_QUEUE": "transport.registry",
    "EmptyFrame": "errors",
    "EnrolledAgent": "transport.clients.authd",
    "EventTooLarge": "errors",
    "Exchange": "transport.aio.protocol_client",
    "ForceInsertion": "transport.clients.authd",
    "FrameError": "errors",
    "FrameTooLarge": "errors",
    "HOME": "transport.registry",
    "MessageInvalid": "transport.schema",
    "NoSuchAgent": "transport.clients.status",
    "NotReached": "transport.clients.broadcast",
    "PageStream": "transport.clients.wazuh_db",
    "PayloadTooLarge": "errors",
    "PeerClosed": "errors",
    "PeerCredentials": "transport.paths",
    "Pool": "transport.pool.pool",
    "PoolStatistics": "transport.pool.pool",
    "ProtocolStatistics": "transport.aio.protocol_connection",
    "QueueBroken": "transport.errors",
    "QueueClosed": "transport.errors",
    "QueueTimeout": "errors",
    "RowStream": "transport.clients.wazuh_db",
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
    "WazuhAnalysisdQueue": "transport.blocking.datagram",
    "WazuhAsyncAnalysisdQueue": "transport.aio.datagram",
    "WazuhAsyncProtocol": "transport.aio.protocol",
    "WazuhAsyncQueue": "transport.aio.datagram",
    "WazuhAsyncSocket": "transport.aio.socket",
    "WazuhAsyncSocketJSON": "transport.aio.socket",
    "WazuhDB": "transport.clients.wazuh_db",
    "WazuhDBSession": "transport.clients.wazuh_db",
    "WazuhError": "errors",
    "WazuhException": "errors",
    "WazuhInternalError": "errors",
    "WazuhQueue": "transport.blocking.datagram",
    "WazuhSocket": "transport.blocking.socket",
    "WazuhSocketJSON": "transport.blocking.socket",
    "add_agent": "transport.clients.authd",
    "agent_configuration": "transport.clients.configuration",
    "agent_ids": "transport.clients.agents",
    "agent_info": "transport.clients.agents",
    "agent_state": "transport.clients.status",
    "agent_status": "transport.clients.status",
    "agents_stats": "transport.clients.status",
    "ask_agent": "transport.clients.status",
    "assign_groups": "transport.clients.agents",
    "broadcast": "transport.clients.broadcast",
    "check_path": "transport.paths",
    "create_active_response": "transport.clients.active_response",
    "create_event_header": "wire.event",
    "create_script_command": "transport.clients.active_response",
    "create_wazuh_queue_socket_msg": "wire.agent_command",
    "create_wazuh_socket_message": "wire.envelope",
    "daemon_configuration": "transport.clients.configuration",
    "daemon_stats": "transport.clients.status",
    "daemons": "transport.registry",
    "daemons_under": "transport.registry",
    "escape_location": "wire.event",
    "force_reconnect": "transport.clients.active_response",
    "get_agent": "transport.clients.authd",
    "get_daemon": "transport.registry",
    "open_pool": "transport.pool.pool",
    "open_wazuh_db": "transport.clients.wazuh_db",
    "register_daemon": "transport.registry",
    "register_schemas": "transport.schema",
    "remove_agent": "transport.clients.authd",
    "restart_agents": "transport.clients.active_response",
    "restart_syscheck": "transport.clients.active_response",
    "send_active_response": "transport.clients.active_response",
    "send_command": "transport.clients.active_response",
    "send_event": "transport.clients.events",
    "unregister_schemas": "transport.schema",
    "validate_reply": "transport.schema",
    "validate_request": "transport.schema",
    "wazuh_sendasync": "transport.send",
    "wazuh_sendsync": "transport.send",
}

__all__ = [
    "ANALYSISD_QUEUE",
    "AR_QUEUE",
    "EXECQ_QUEUE",
    "HOME",
    "SOCKET_COMMUNICATION_PROTOCOL_VERSION",
    "AgentStatus",
    "AnswerCut",
    "AnswerInvalid",
    "BacklogFull",
    "BaseAsyncQueue",
    "BaseQueue",
    "BroadcastReport",
    "Connect",
    "ConnectionState",
    "Daemon",
    "DaemonEntry",
    "EmptyFrame",
    "EnrolledAgent",
    "EventTooLarge",
    "Exchange",
    "ForceInsertion",
    "FrameError",
    "FrameTooLarge",
    "MessageInvalid",
    "NoSuchAgent",
    "NotReached",
    "PageStream",
    "PayloadTooLarge",
    "PeerClosed",
    "PeerCredentials",
    "Pool",
    "PoolStatistics",
    "ProtocolStatistics",
    "QueueBroken",
    "QueueClosed",
    "QueueTimeout",
    "RowStream",
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
    "WazuhDB",
    "WazuhDBSession",
    "WazuhError",
    "WazuhException",
    "WazuhInternalError",
    "WazuhQueue",
    "WazuhSocket",
    "WazuhSocketJSON",
    "add_agent",
    "agent_configuration",
    "agent_ids",
    "agent_info",
    "agent_state",
    "agent_status",
    "agents_stats",
    "ask_agent",
    "assign_groups",
    "broadcast",
    "check_path",
    "create_active_response",
    "create_event_header",
    "create_script_command",
    "create_wazuh_queue_socket_msg",
    "create_wazuh_socket_message",
    "daemon_configuration",
    "daemon_stats",
    "daemons",
    "daemons_under",
    "escape_location",
    "force_reconnect",
    "get_agent",
    "get_daemon",
    "open_pool",
    "open_wazuh_db",
    "register_daemon",
    "register_schemas",
    "remove_agent",
    "restart_agents",
    "restart_syscheck",
    "send_active_response",
    "send_command",
    "send_event",
    "unregister_schemas",
    "validate_reply",
    "validate_request",
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
