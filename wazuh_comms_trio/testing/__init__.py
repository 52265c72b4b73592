"""Fakes for programs that build on this: daemons and queues as they really behave, and an agent. Nothing here is
imported before it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wazuh_comms_trio.foundation.lazy_imports import lazy_imports

if TYPE_CHECKING:  # the public names: scripts/make-docs makes the table of them from here
    from wazuh_comms_trio.testing.agent.client import AgentClient as AgentClient
    from wazuh_comms_trio.testing.agent.client import command_report as command_report
    from wazuh_comms_trio.testing.agent.client import enroll as enroll
    from wazuh_comms_trio.testing.agent.client import metadata_line as metadata_line
    from wazuh_comms_trio.testing.agent.client import stateful_event as stateful_event
    from wazuh_comms_trio.testing.agent.client import stateless_event as stateless_event
    from wazuh_comms_trio.testing.agent.client import token_expiry as token_expiry
    from wazuh_comms_trio.testing.agent.connection import Connect as Connect
    from wazuh_comms_trio.testing.agent.connection import Verification as Verification
    from wazuh_comms_trio.testing.agent.connection import agent_tls as agent_tls
    from wazuh_comms_trio.testing.agent.connection import connect_tcp as connect_tcp
    from wazuh_comms_trio.testing.agent.connection import open_tls as open_tls
    from wazuh_comms_trio.testing.agent.http import ExchangeFailed as ExchangeFailed
    from wazuh_comms_trio.testing.agent.http import Reply as Reply
    from wazuh_comms_trio.testing.agent.http import ReplyDecoder as ReplyDecoder
    from wazuh_comms_trio.testing.agent.http import ReplyRefused as ReplyRefused
    from wazuh_comms_trio.testing.agent.http import exchange as exchange
    from wazuh_comms_trio.testing.agent.http import request_head as request_head
    from wazuh_comms_trio.testing.agent.program import AgentExits as AgentExits
    from wazuh_comms_trio.testing.agent.program import AgentProgram as AgentProgram
    from wazuh_comms_trio.testing.agent.program import AgentSettings as AgentSettings
    from wazuh_comms_trio.testing.agent.program import Exchange as Exchange
    from wazuh_comms_trio.testing.agent.program import Outbox as Outbox
    from wazuh_comms_trio.testing.certificates import Certificate as Certificate
    from wazuh_comms_trio.testing.certificates import throwaway_certificate as throwaway_certificate
    from wazuh_comms_trio.testing.daemons.authd import AuthdModel as AuthdModel
    from wazuh_comms_trio.testing.daemons.conduct import CONDUCTS as CONDUCTS
    from wazuh_comms_trio.testing.daemons.conduct import HEALTHY as HEALTHY
    from wazuh_comms_trio.testing.daemons.conduct import Act as Act
    from wazuh_comms_trio.testing.daemons.conduct import Answer as Answer
    from wazuh_comms_trio.testing.daemons.conduct import AnswerCallback as AnswerCallback
    from wazuh_comms_trio.testing.daemons.conduct import AnswerScript as AnswerScript
    from wazuh_comms_trio.testing.daemons.conduct import Conduct as Conduct
    from wazuh_comms_trio.testing.daemons.conduct import Frames as Frames
    from wazuh_comms_trio.testing.daemons.conduct import Oddities as Oddities
    from wazuh_comms_trio.testing.daemons.conduct import Raw as Raw
    from wazuh_comms_trio.testing.daemons.http_models import EngineModel as EngineModel
    from wazuh_comms_trio.testing.daemons.http_models import InventoryModel as InventoryModel
    from wazuh_comms_trio.testing.daemons.http_models import RemotedAdminModel as RemotedAdminModel
    from wazuh_comms_trio.testing.daemons.http_models import ScannerModel as ScannerModel
    from wazuh_comms_trio.testing.daemons.http_models import WazuhDBHTTPModel as WazuhDBHTTPModel
    from wazuh_comms_trio.testing.daemons.http_server import FakeHTTPDaemon as FakeHTTPDaemon
    from wazuh_comms_trio.testing.daemons.http_server import FakeReply as FakeReply
    from wazuh_comms_trio.testing.daemons.http_server import FakeRequest as FakeRequest
    from wazuh_comms_trio.testing.daemons.http_server import HTTPCallback as HTTPCallback
    from wazuh_comms_trio.testing.daemons.http_server import HTTPConduct as HTTPConduct
    from wazuh_comms_trio.testing.daemons.http_server import open_fake_http as open_fake_http
    from wazuh_comms_trio.testing.daemons.models import ComponentModel as ComponentModel
    from wazuh_comms_trio.testing.daemons.models import RemotedModel as RemotedModel
    from wazuh_comms_trio.testing.daemons.models import TaskManagerModel as TaskManagerModel
    from wazuh_comms_trio.testing.daemons.models_5 import AgentTasksModel as AgentTasksModel
    from wazuh_comms_trio.testing.daemons.models_5 import AuthdModel5 as AuthdModel5
    from wazuh_comms_trio.testing.daemons.models_5 import ControlModel as ControlModel
    from wazuh_comms_trio.testing.daemons.models_5 import KeystoreModel as KeystoreModel
    from wazuh_comms_trio.testing.daemons.models_5 import RemotedModel5 as RemotedModel5
    from wazuh_comms_trio.testing.daemons.models_5 import UpgradeModel as UpgradeModel
    from wazuh_comms_trio.testing.daemons.models_5 import WazuhDBModel5 as WazuhDBModel5
    from wazuh_comms_trio.testing.daemons.queues import ArMessage as ArMessage
    from wazuh_comms_trio.testing.daemons.queues import EventMessage as EventMessage
    from wazuh_comms_trio.testing.daemons.queues import ExecMessage as ExecMessage
    from wazuh_comms_trio.testing.daemons.queues import FakeQueue as FakeQueue
    from wazuh_comms_trio.testing.daemons.queues import open_fake_queue as open_fake_queue
    from wazuh_comms_trio.testing.daemons.server import FakeDaemon as FakeDaemon
    from wazuh_comms_trio.testing.daemons.server import open_fake_daemon as open_fake_daemon
    from wazuh_comms_trio.testing.daemons.sockets import ScriptExhausted as ScriptExhausted
    from wazuh_comms_trio.testing.daemons.wazuh_db import WazuhDBModel as WazuhDBModel
    from wazuh_comms_trio.testing.node.daemon import Daemon as Daemon
    from wazuh_comms_trio.testing.node.daemon import daemon_config as daemon_config
    from wazuh_comms_trio.testing.node.daemon import open_daemon as open_daemon
    from wazuh_comms_trio.testing.node.daemon import run_inline as run_inline
    from wazuh_comms_trio.testing.streams import MemoryListener as MemoryListener
    from wazuh_comms_trio.testing.streams import MemorySocket as MemorySocket
    from wazuh_comms_trio.testing.streams import MemoryStream as MemoryStream
    from wazuh_comms_trio.testing.streams import memory_connection as memory_connection

lazy_imports(__name__)
