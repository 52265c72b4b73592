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
    from wazuh_comms_trio.transport.active_response import (
        create_active_response,
        create_script_command,
        force_reconnect,
        restart_agents,
        restart_syscheck,
        send_active_response,
        send_command,
    )
    from wazuh_comms_trio.transport.active_response_broadcast import (
        BroadcastReport,
        NotReached,
        broadcast,
    )
    from wazuh_comms_trio.transport.agents import (
        agent_ids,
        agent_info,
        assign_groups,
    )
    from wazuh_comms_trio.transport.async_datagram import (
        BaseAsyncQueue,
        WazuhAsyncAnalysisdQueue,
        WazuhAsyncQueue,
    )
    from wazuh_comms_trio.transport.async_protocol import WazuhAsyncProtocol
    from wazuh_comms_trio.transport.async_socket import (
        WazuhAsyncSocket,
        WazuhAsyncSocketJSON,
    )
    from wazuh_comms_trio.transport.authd import (
        EnrolledAgent,
        ForceInsertion,
        add_agent,
        get_agent,
        remove_agent,
    )
    from wazuh_comms_trio.transport.configuration import (
        agent_configuration,
        daemon_configuration,
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
    from wazuh_comms_trio.transport.events import (
        send_event,
    )
    from wazuh_comms_trio.transport.paths import (
        PeerCredentials,
        check_path,
    )
    from wazuh_comms_trio.transport.pool import (
        Pool,
        PoolStatistics,
        open_pool,
    )
    from wazuh_comms_trio.transport.pool_connector import Connect
    from wazuh_comms_trio.transport.protocol_client import Exchange
    from wazuh_comms_trio.transport.protocol_connection import ConnectionState, ProtocolStatistics
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
    from wazuh_comms_trio.transport.status import (
        AgentStatus,
        NoSuchAgent,
        agent_state,
        agent_status,
        agents_stats,
        ask_agent,
        daemon_stats,
    )
    from wazuh_comms_trio.transport.sync_socket import (
        WazuhSocket,
        WazuhSocketJSON,
    )
    from wazuh_comms_trio.transport.wazuh_db import (
        PageStream,
        RowStream,
        WazuhDB,
        WazuhDBSession,
        open_wazuh_db,
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
    "AgentStatus": "transport.status",
    "AnswerCut": "errors",
    "AnswerInvalid": "errors",
    "BacklogFull": "errors",
    "BaseAsyncQueue": "transport.async_datagram",
    "BaseQueue": "transport.datagram",
    "BroadcastReport": "transport.active_response_broadcast",
    "Connect": "transport.pool_connector",
    "ConnectionState": "transport.protocol_connection",
    "Daemon": "transport.registry",
    "DaemonEntry": "transport.registry",
    "EXECQ_QUEUE": "transport.registry",
    "EmptyFrame": "errors",
    "EnrolledAgent": "transport.authd",
    "EventTooLarge": "errors",
    "Exchange": "transport.protocol_client",
    "ForceInsertion": "transport.authd",
    "FrameError": "errors",
    "FrameTooLarge": "errors",
    "HOME": "transport.registry",
    "MessageInvalid": "transport.schema",
    "NoSuchAgent": "transport.status",
    "NotReached": "transport.active_response_broadcast",
    "PageStream": "transport.wazuh_db",
    "PayloadTooLarge": "errors",
    "PeerClosed": "errors",
    "PeerCredentials": "transport.paths",
    "Pool": "transport.pool",
    "PoolStatistics": "transport.pool",
    "ProtocolStatistics": "transport.protocol_connection",
    "QueueBroken": "transport.errors",
    "QueueClosed": "transport.errors",
    "QueueTimeout": "errors",
    "RowStream": "transport.wazuh_db",
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
    "WazuhDB": "transport.wazuh_db",
    "WazuhDBSession": "transport.wazuh_db",
    "WazuhError": "errors",
    "WazuhException": "errors",
    "WazuhInternalError": "errors",
    "WazuhQueue": "transport.datagram",
    "WazuhSocket": "transport.sync_socket",
    "WazuhSocketJSON": "transport.sync_socket",
    "add_agent": "transport.authd",
    "agent_configuration": "transport.configuration",
    "agent_ids": "transport.agents",
    "agent_info": "transport.agents",
    "agent_state": "transport.status",
    "agent_status": "transport.status",
    "agents_stats": "transport.status",
    "ask_agent": "transport.status",
    "assign_groups": "transport.agents",
    "broadcast": "transport.active_response_broadcast",
    "check_path": "transport.paths",
    "create_active_response": "transport.active_response",
    "create_event_header": "wire.event",
    "create_script_command": "transport.active_response",
    "create_wazuh_queue_socket_msg": "wire.agent_command",
    "create_wazuh_socket_message": "wire.envelope",
    "daemon_configuration": "transport.configuration",
    "daemon_stats": "transport.status",
    "daemons": "transport.registry",
    "daemons_under": "transport.registry",
    "escape_location": "wire.event",
    "force_reconnect": "transport.active_response",
    "get_agent": "transport.authd",
    "get_daemon": "transport.registry",
    "open_pool": "transport.pool",
    "open_wazuh_db": "transport.wazuh_db",
    "register_daemon": "transport.registry",
    "register_schemas": "transport.schema",
    "remove_agent": "transport.authd",
    "restart_agents": "transport.active_response",
    "restart_syscheck": "transport.active_response",
    "send_active_response": "transport.active_response",
    "send_command": "transport.active_response",
    "send_event": "transport.events",
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
