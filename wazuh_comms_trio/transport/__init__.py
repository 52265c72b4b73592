"""Sockets and queues to a Wazuh server's daemons, for plain and for trio programs.

Nothing is imported before it is asked for: a program that uses the blocking classes alone never imports trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wazuh_comms_trio.foundation.lazy_imports import lazy_imports

if TYPE_CHECKING:  # the public names: scripts/make-docs makes the table of them from here
    from wazuh_comms_trio.errors import AnswerCut as AnswerCut
    from wazuh_comms_trio.errors import AnswerInvalid as AnswerInvalid
    from wazuh_comms_trio.errors import BacklogFull as BacklogFull
    from wazuh_comms_trio.errors import DaemonRefusal as DaemonRefusal
    from wazuh_comms_trio.errors import EmptyFrame as EmptyFrame
    from wazuh_comms_trio.errors import EventTooLarge as EventTooLarge
    from wazuh_comms_trio.errors import FrameError as FrameError
    from wazuh_comms_trio.errors import FrameTooLarge as FrameTooLarge
    from wazuh_comms_trio.errors import MessageInvalid as MessageInvalid
    from wazuh_comms_trio.errors import NotInRelease as NotInRelease
    from wazuh_comms_trio.errors import PayloadTooLarge as PayloadTooLarge
    from wazuh_comms_trio.errors import PeerClosed as PeerClosed
    from wazuh_comms_trio.errors import QueueTimeout as QueueTimeout
    from wazuh_comms_trio.errors import SendSyncError as SendSyncError
    from wazuh_comms_trio.errors import SocketTimeout as SocketTimeout
    from wazuh_comms_trio.errors import TruncatedFrame as TruncatedFrame
    from wazuh_comms_trio.errors import WazuhError as WazuhError
    from wazuh_comms_trio.errors import WazuhException as WazuhException
    from wazuh_comms_trio.errors import WazuhInternalError as WazuhInternalError
    from wazuh_comms_trio.transport.aio.datagram import BaseAsyncQueue as BaseAsyncQueue
    from wazuh_comms_trio.transport.aio.datagram import WazuhAsyncAnalysisdQueue as WazuhAsyncAnalysisdQueue
    from wazuh_comms_trio.transport.aio.datagram import WazuhAsyncQueue as WazuhAsyncQueue
    from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol as WazuhAsyncProtocol
    from wazuh_comms_trio.transport.aio.protocol_client import Exchange as Exchange
    from wazuh_comms_trio.transport.aio.protocol_connection import ConnectionState as ConnectionState
    from wazuh_comms_trio.transport.aio.protocol_connection import ProtocolStatistics as ProtocolStatistics
    from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket as WazuhAsyncSocket
    from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocketJSON as WazuhAsyncSocketJSON
    from wazuh_comms_trio.transport.blocking.datagram import BaseQueue as BaseQueue
    from wazuh_comms_trio.transport.blocking.datagram import WazuhAnalysisdQueue as WazuhAnalysisdQueue
    from wazuh_comms_trio.transport.blocking.datagram import WazuhQueue as WazuhQueue
    from wazuh_comms_trio.transport.blocking.socket import WazuhSocket as WazuhSocket
    from wazuh_comms_trio.transport.blocking.socket import WazuhSocketJSON as WazuhSocketJSON
    from wazuh_comms_trio.transport.clients.active_response import create_active_response as create_active_response
    from wazuh_comms_trio.transport.clients.active_response import create_script_command as create_script_command
    from wazuh_comms_trio.transport.clients.active_response import force_reconnect as force_reconnect
    from wazuh_comms_trio.transport.clients.active_response import restart_agents as restart_agents
    from wazuh_comms_trio.transport.clients.active_response import restart_syscheck as restart_syscheck
    from wazuh_comms_trio.transport.clients.active_response import send_active_response as send_active_response
    from wazuh_comms_trio.transport.clients.active_response import send_command as send_command
    from wazuh_comms_trio.transport.clients.agents import agent_ids as agent_ids
    from wazuh_comms_trio.transport.clients.agents import agent_info as agent_info
    from wazuh_comms_trio.transport.clients.agents import assign_groups as assign_groups
    from wazuh_comms_trio.transport.clients.authd import EnrolledAgent as EnrolledAgent
    from wazuh_comms_trio.transport.clients.authd import ForceInsertion as ForceInsertion
    from wazuh_comms_trio.transport.clients.authd import add_agent as add_agent
    from wazuh_comms_trio.transport.clients.authd import get_agent as get_agent
    from wazuh_comms_trio.transport.clients.authd import remove_agent as remove_agent
    from wazuh_comms_trio.transport.clients.broadcast import BroadcastReport as BroadcastReport
    from wazuh_comms_trio.transport.clients.broadcast import NotReached as NotReached
    from wazuh_comms_trio.transport.clients.broadcast import broadcast as broadcast
    from wazuh_comms_trio.transport.clients.configuration import agent_configuration as agent_configuration
    from wazuh_comms_trio.transport.clients.configuration import daemon_configuration as daemon_configuration
    from wazuh_comms_trio.transport.clients.events import send_event as send_event
    from wazuh_comms_trio.transport.clients.status import AgentStatus as AgentStatus
    from wazuh_comms_trio.transport.clients.status import NoSuchAgent as NoSuchAgent
    from wazuh_comms_trio.transport.clients.status import agent_state as agent_state
    from wazuh_comms_trio.transport.clients.status import agent_status as agent_status
    from wazuh_comms_trio.transport.clients.status import agents_stats as agents_stats
    from wazuh_comms_trio.transport.clients.status import ask_agent as ask_agent
    from wazuh_comms_trio.transport.clients.status import daemon_stats as daemon_stats
    from wazuh_comms_trio.transport.clients.wazuh_db import PageStream as PageStream
    from wazuh_comms_trio.transport.clients.wazuh_db import RowStream as RowStream
    from wazuh_comms_trio.transport.clients.wazuh_db import WazuhDB as WazuhDB
    from wazuh_comms_trio.transport.clients.wazuh_db import WazuhDBSession as WazuhDBSession
    from wazuh_comms_trio.transport.clients.wazuh_db import open_wazuh_db as open_wazuh_db
    from wazuh_comms_trio.transport.errors import QueueBroken as QueueBroken
    from wazuh_comms_trio.transport.errors import QueueClosed as QueueClosed
    from wazuh_comms_trio.transport.errors import TransportBroken as TransportBroken
    from wazuh_comms_trio.transport.errors import TransportClosed as TransportClosed
    from wazuh_comms_trio.transport.errors import TransportEmptyFrame as TransportEmptyFrame
    from wazuh_comms_trio.transport.errors import TransportError as TransportError
    from wazuh_comms_trio.transport.errors import TransportFrameTooLarge as TransportFrameTooLarge
    from wazuh_comms_trio.transport.errors import TransportPeerClosed as TransportPeerClosed
    from wazuh_comms_trio.transport.errors import TransportTruncatedFrame as TransportTruncatedFrame
    from wazuh_comms_trio.transport.errors import TrioOnly as TrioOnly
    from wazuh_comms_trio.transport.http.call import HTTPAnswer as HTTPAnswer
    from wazuh_comms_trio.transport.http.call import HTTPCall as HTTPCall
    from wazuh_comms_trio.transport.http.call import HTTPRequest as HTTPRequest
    from wazuh_comms_trio.transport.http.errors import HTTPAnswerInvalid as HTTPAnswerInvalid
    from wazuh_comms_trio.transport.http.errors import HTTPConnectError as HTTPConnectError
    from wazuh_comms_trio.transport.http.errors import HTTPError as HTTPError
    from wazuh_comms_trio.transport.http.errors import HTTPFailed as HTTPFailed
    from wazuh_comms_trio.transport.http.errors import HTTPStatusError as HTTPStatusError
    from wazuh_comms_trio.transport.http.errors import HTTPTimeout as HTTPTimeout
    from wazuh_comms_trio.transport.http.errors import RouteMissing as RouteMissing
    from wazuh_comms_trio.transport.http.framework import EngineHTTPClient as EngineHTTPClient
    from wazuh_comms_trio.transport.http.framework import ModulesdHTTPClient as ModulesdHTTPClient
    from wazuh_comms_trio.transport.http.framework import VdHTTPClient as VdHTTPClient
    from wazuh_comms_trio.transport.http.framework import WazuhDBHTTPClient as WazuhDBHTTPClient
    from wazuh_comms_trio.transport.http.framework import get_wdb_http_client as get_wdb_http_client
    from wazuh_comms_trio.transport.http.plain import HTTPClient as HTTPClient
    from wazuh_comms_trio.transport.http.pool import HTTPPool as HTTPPool
    from wazuh_comms_trio.transport.http.pool import HTTPStatistics as HTTPStatistics
    from wazuh_comms_trio.transport.http.pool import open_http as open_http
    from wazuh_comms_trio.transport.http.services import delete_inventory as delete_inventory
    from wazuh_comms_trio.transport.http.services import engine_metrics as engine_metrics
    from wazuh_comms_trio.transport.http.services import engine_status as engine_status
    from wazuh_comms_trio.transport.http.services import inventory_metrics as inventory_metrics
    from wazuh_comms_trio.transport.http.services import inventory_stateful as inventory_stateful
    from wazuh_comms_trio.transport.http.services import remoted_metrics as remoted_metrics
    from wazuh_comms_trio.transport.http.services import scan_agent as scan_agent
    from wazuh_comms_trio.transport.http.services import scanner_offset as scanner_offset
    from wazuh_comms_trio.transport.http.services import scanner_status as scanner_status
    from wazuh_comms_trio.transport.http.services import service_status as service_status
    from wazuh_comms_trio.transport.http.services import update_scanner as update_scanner
    from wazuh_comms_trio.transport.http.wazuh_db import AgentIDGroups as AgentIDGroups
    from wazuh_comms_trio.transport.http.wazuh_db import AgentsSummary as AgentsSummary
    from wazuh_comms_trio.transport.http.wazuh_db import db_agent_groups as db_agent_groups
    from wazuh_comms_trio.transport.http.wazuh_db import db_agent_ids as db_agent_ids
    from wazuh_comms_trio.transport.http.wazuh_db import db_agents_groups as db_agents_groups
    from wazuh_comms_trio.transport.http.wazuh_db import db_agents_summary as db_agents_summary
    from wazuh_comms_trio.transport.http.wazuh_db import db_agents_sync as db_agents_sync
    from wazuh_comms_trio.transport.http.wazuh_db import db_all_agents as db_all_agents
    from wazuh_comms_trio.transport.http.wazuh_db import db_group_agents as db_group_agents
    from wazuh_comms_trio.transport.http.wazuh_db import db_restart_info as db_restart_info
    from wazuh_comms_trio.transport.http.wazuh_db import db_set_agents_sync as db_set_agents_sync
    from wazuh_comms_trio.transport.paths import PeerCredentials as PeerCredentials
    from wazuh_comms_trio.transport.paths import check_path as check_path
    from wazuh_comms_trio.transport.pool.connector import Connect as Connect
    from wazuh_comms_trio.transport.pool.pool import Pool as Pool
    from wazuh_comms_trio.transport.pool.pool import PoolStatistics as PoolStatistics
    from wazuh_comms_trio.transport.pool.pool import open_pool as open_pool
    from wazuh_comms_trio.transport.registry import ANALYSISD_QUEUE as ANALYSISD_QUEUE
    from wazuh_comms_trio.transport.registry import AR_QUEUE as AR_QUEUE
    from wazuh_comms_trio.transport.registry import EXECQ_QUEUE as EXECQ_QUEUE
    from wazuh_comms_trio.transport.registry import HOME as HOME
    from wazuh_comms_trio.transport.registry import Daemon as Daemon
    from wazuh_comms_trio.transport.registry import DaemonEntry as DaemonEntry
    from wazuh_comms_trio.transport.registry import daemons as daemons
    from wazuh_comms_trio.transport.registry import daemons_under as daemons_under
    from wazuh_comms_trio.transport.registry import get_daemon as get_daemon
    from wazuh_comms_trio.transport.registry import register_daemon as register_daemon
    from wazuh_comms_trio.transport.releases.detect import detect_release as detect_release
    from wazuh_comms_trio.transport.releases.release import Release as Release
    from wazuh_comms_trio.transport.releases.release import release_of as release_of
    from wazuh_comms_trio.transport.releases.switches import set_defaults as set_defaults
    from wazuh_comms_trio.transport.schema import register_schemas as register_schemas
    from wazuh_comms_trio.transport.schema import unregister_schemas as unregister_schemas
    from wazuh_comms_trio.transport.schema import validate_reply as validate_reply
    from wazuh_comms_trio.transport.schema import validate_request as validate_request
    from wazuh_comms_trio.transport.send import wazuh_sendasync as wazuh_sendasync
    from wazuh_comms_trio.transport.send import wazuh_sendsync as wazuh_sendsync
    from wazuh_comms_trio.wire.agent_command import create_wazuh_queue_socket_msg as create_wazuh_queue_socket_msg
    from wazuh_comms_trio.wire.envelope import (
        SOCKET_COMMUNICATION_PROTOCOL_VERSION as SOCKET_COMMUNICATION_PROTOCOL_VERSION,
    )
    from wazuh_comms_trio.wire.envelope import create_wazuh_socket_message as create_wazuh_socket_message
    from wazuh_comms_trio.wire.event import create_event_header as create_event_header
    from wazuh_comms_trio.wire.event import escape_location as escape_location

lazy_imports(__name__)
