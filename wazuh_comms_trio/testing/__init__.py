"""Fakes for those who build on this: daemons and queues as they really behave, and an agent. Nothing here is imported
before it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wazuh_comms_trio.testing.agent import AgentClient as AgentClient
    from wazuh_comms_trio.testing.agent import command_report as command_report
    from wazuh_comms_trio.testing.agent import enroll as enroll
    from wazuh_comms_trio.testing.agent import metadata_line as metadata_line
    from wazuh_comms_trio.testing.agent import stateful_event as stateful_event
    from wazuh_comms_trio.testing.agent import stateless_event as stateless_event
    from wazuh_comms_trio.testing.agent import token_expiry as token_expiry
    from wazuh_comms_trio.testing.agent_connection import Connect as Connect
    from wazuh_comms_trio.testing.agent_connection import Verification as Verification
    from wazuh_comms_trio.testing.agent_connection import agent_tls as agent_tls
    from wazuh_comms_trio.testing.agent_connection import connect_tcp as connect_tcp
    from wazuh_comms_trio.testing.agent_connection import open_tls as open_tls
    from wazuh_comms_trio.testing.agent_http import ExchangeFailed as ExchangeFailed
    from wazuh_comms_trio.testing.agent_http import Reply as Reply
    from wazuh_comms_trio.testing.agent_http import ReplyDecoder as ReplyDecoder
    from wazuh_comms_trio.testing.agent_http import ReplyRefused as ReplyRefused
    from wazuh_comms_trio.testing.agent_http import exchange as exchange
    from wazuh_comms_trio.testing.agent_http import request_head as request_head
    from wazuh_comms_trio.testing.agent_program import AgentExits as AgentExits
    from wazuh_comms_trio.testing.agent_program import AgentProgram as AgentProgram
    from wazuh_comms_trio.testing.agent_program import AgentSettings as AgentSettings
    from wazuh_comms_trio.testing.agent_program import Exchange as Exchange
    from wazuh_comms_trio.testing.agent_program import Outbox as Outbox
    from wazuh_comms_trio.testing.certificates import Certificate as Certificate
    from wazuh_comms_trio.testing.certificates import throwaway_certificate as throwaway_certificate
    from wazuh_comms_trio.testing.daemon import Daemon as Daemon
    from wazuh_comms_trio.testing.daemon import daemon_config as daemon_config
    from wazuh_comms_trio.testing.daemon import open_daemon as open_daemon
    from wazuh_comms_trio.testing.daemon import run_inline as run_inline
    from wazuh_comms_trio.testing.daemons_conduct import (
        CONDUCTS,
        HEALTHY,
        Act,
        Answer,
        AnswerCallback,
        AnswerScript,
        Conduct,
        Frames,
        Oddities,
        Raw,
    )
    from wazuh_comms_trio.testing.daemons_models import (
        AuthdModel,
        ComponentModel,
        RemotedModel,
        TaskManagerModel,
    )
    from wazuh_comms_trio.testing.daemons_queues import (
        ArMessage,
        EventMessage,
        ExecMessage,
        FakeQueue,
        open_fake_queue,
    )
    from wazuh_comms_trio.testing.daemons_server import (
        FakeDaemon,
        open_fake_daemon,
    )
    from wazuh_comms_trio.testing.daemons_sockets import ScriptExhausted
    from wazuh_comms_trio.testing.daemons_wdb import WazuhDBModel
    from wazuh_comms_trio.testing.streams import MemoryListener as MemoryListener
    from wazuh_comms_trio.testing.streams import MemorySocket as MemorySocket
    from wazuh_comms_trio.testing.streams import MemoryStream as MemoryStream
    from wazuh_comms_trio.testing.streams import memory_connection as memory_connection

#: public name -> the module that has it
_HOME = {
    "Act": "daemons_conduct",
    "AgentClient": "agent",
    "AgentExits": "agent_program",
    "AgentProgram": "agent_program",
    "AgentSettings": "agent_program",
    "Answer": "daemons_conduct",
    "AnswerCallback": "daemons_conduct",
    "AnswerScript": "daemons_conduct",
    "ArMessage": "daemons_queues",
    "AuthdModel": "daemons_models",
    "CONDUCTS": "daemons_conduct",
    "Certificate": "certificates",
    "ComponentModel": "daemons_models",
    "Conduct": "daemons_conduct",
    "Connect": "agent_connection",
    "Daemon": "daemon",
    "EventMessage": "daemons_queues",
    "Exchange": "agent_program",
    "ExchangeFailed": "agent_http",
    "ExecMessage": "daemons_queues",
    "FakeDaemon": "daemons_server",
    "FakeQueue": "daemons_queues",
    "Frames": "daemons_conduct",
    "HEALTHY": "daemons_conduct",
    "MemoryListener": "streams",
    "MemorySocket": "streams",
    "MemoryStream": "streams",
    "Oddities": "daemons_conduct",
    "Outbox": "agent_program",
    "Raw": "daemons_conduct",
    "RemotedModel": "daemons_models",
    "Reply": "agent_http",
    "ReplyDecoder": "agent_http",
    "ReplyRefused": "agent_http",
    "ScriptExhausted": "daemons_sockets",
    "TaskManagerModel": "daemons_models",
    "Verification": "agent_connection",
    "WazuhDBModel": "daemons_wdb",
    "agent_tls": "agent_connection",
    "command_report": "agent",
    "connect_tcp": "agent_connection",
    "daemon_config": "daemon",
    "enroll": "agent",
    "exchange": "agent_http",
    "memory_connection": "streams",
    "metadata_line": "agent",
    "open_daemon": "daemon",
    "open_fake_daemon": "daemons_server",
    "open_fake_queue": "daemons_queues",
    "open_tls": "agent_connection",
    "request_head": "agent_http",
    "run_inline": "daemon",
    "stateful_event": "agent",
    "stateless_event": "agent",
    "throwaway_certificate": "certificates",
    "token_expiry": "agent",
}

__all__ = [
    "CONDUCTS",
    "HEALTHY",
    "Act",
    "AgentClient",
    "AgentExits",
    "AgentProgram",
    "AgentSettings",
    "Answer",
    "AnswerCallback",
    "AnswerScript",
    "ArMessage",
    "AuthdModel",
    "Certificate",
    "ComponentModel",
    "Conduct",
    "Connect",
    "Daemon",
    "EventMessage",
    "Exchange",
    "ExchangeFailed",
    "ExecMessage",
    "FakeDaemon",
    "FakeQueue",
    "Frames",
    "MemoryListener",
    "MemorySocket",
    "MemoryStream",
    "Oddities",
    "Outbox",
    "Raw",
    "RemotedModel",
    "Reply",
    "ReplyDecoder",
    "ReplyRefused",
    "ScriptExhausted",
    "TaskManagerModel",
    "Verification",
    "WazuhDBModel",
    "agent_tls",
    "command_report",
    "connect_tcp",
    "daemon_config",
    "enroll",
    "exchange",
    "memory_connection",
    "metadata_line",
    "open_daemon",
    "open_fake_daemon",
    "open_fake_queue",
    "open_tls",
    "request_head",
    "run_inline",
    "stateful_event",
    "stateless_event",
    "throwaway_certificate",
    "token_expiry",
]


def __getattr__(name: str) -> object:
    if (module := _HOME.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
