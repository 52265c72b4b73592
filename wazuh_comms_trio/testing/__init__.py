"""Fakes for those who build on this: daemons and queues as they really behave, and an agent. Nothing here is imported
before it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from wazuh_comms_trio.testing.daemons.conduct import (
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
    from wazuh_comms_trio.testing.daemons.models import (
        AuthdModel,
        ComponentModel,
        RemotedModel,
        TaskManagerModel,
    )
    from wazuh_comms_trio.testing.daemons.queues import (
        ArMessage,
        EventMessage,
        ExecMessage,
        FakeQueue,
        open_fake_queue,
    )
    from wazuh_comms_trio.testing.daemons.server import FakeDaemon, open_fake_daemon
    from wazuh_comms_trio.testing.daemons.sockets import ScriptExhausted
    from wazuh_comms_trio.testing.daemons.wazuh_db import WazuhDBModel
    from wazuh_comms_trio.testing.node.daemon import Daemon as Daemon
    from wazuh_comms_trio.testing.node.daemon import daemon_config as daemon_config
    from wazuh_comms_trio.testing.node.daemon import open_daemon as open_daemon
    from wazuh_comms_trio.testing.node.daemon import run_inline as run_inline
    from wazuh_comms_trio.testing.streams import MemoryListener as MemoryListener
    from wazuh_comms_trio.testing.streams import MemorySocket as MemorySocket
    from wazuh_comms_trio.testing.streams import MemoryStream as MemoryStream
    from wazuh_comms_trio.testing.streams import memory_connection as memory_connection

#: public name -> the module that has it
_HOME = {
    "Act": "daemons.conduct",
    "AgentClient": "agent.client",
    "AgentExits": "agent.program",
    "AgentProgram": "agent.program",
    "AgentSettings": "agent.program",
    "Answer": "daemons.conduct",
    "AnswerCallback": "daemons.conduct",
    "AnswerScript": "daemons.conduct",
    "ArMessage": "daemons.queues",
    "AuthdModel": "daemons.models",
    "CONDUCTS": "daemons.conduct",
    "Certificate": "certificates",
    "ComponentModel": "daemons.models",
    "Conduct": "daemons.conduct",
    "Connect": "agent.connection",
    "Daemon": "node.daemon",
    "EventMessage": "daemons.queues",
    "Exchange": "agent.program",
    "ExchangeFailed": "agent.http",
    "ExecMessage": "daemons.queues",
    "FakeDaemon": "daemons.server",
    "FakeQueue": "daemons.queues",
    "Frames": "daemons.conduct",
    "HEALTHY": "daemons.conduct",
    "MemoryListener": "streams",
    "MemorySocket": "streams",
    "MemoryStream": "streams",
    "Oddities": "daemons.conduct",
    "Outbox": "agent.program",
    "Raw": "daemons.conduct",
    "RemotedModel": "daemons.models",
    "Reply": "agent.http",
    "ReplyDecoder": "agent.http",
    "ReplyRefused": "agent.http",
    "ScriptExhausted": "daemons.sockets",
    "TaskManagerModel": "daemons.models",
    "Verification": "agent.connection",
    "WazuhDBModel": "daemons.wazuh_db",
    "agent_tls": "agent.connection",
    "command_report": "agent.client",
    "connect_tcp": "agent.connection",
    "daemon_config": "node.daemon",
    "enroll": "agent.client",
    "exchange": "agent.http",
    "memory_connection": "streams",
    "metadata_line": "agent.client",
    "open_daemon": "node.daemon",
    "open_fake_daemon": "daemons.server",
    "open_fake_queue": "daemons.queues",
    "open_tls": "agent.connection",
    "request_head": "agent.http",
    "run_inline": "node.daemon",
    "stateful_event": "agent.client",
    "stateless_event": "agent.client",
    "throwaway_certificate": "certificates",
    "token_expiry": "agent.client",
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
