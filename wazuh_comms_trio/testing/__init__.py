"""Fakes for those who build on this: daemons and queues as they really behave, and an agent. Nothing here is imported
before it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
        ScriptExhausted,
        open_fake_daemon,
    )
    from wazuh_comms_trio.testing.daemons_wdb import WazuhDBModel

#: public name -> the module that has it
_HOME = {
    "Act": "daemons_conduct",
    "Answer": "daemons_conduct",
    "AnswerCallback": "daemons_conduct",
    "AnswerScript": "daemons_conduct",
    "ArMessage": "daemons_queues",
    "AuthdModel": "daemons_models",
    "CONDUCTS": "daemons_conduct",
    "ComponentModel": "daemons_models",
    "Conduct": "daemons_conduct",
    "EventMessage": "daemons_queues",
    "ExecMessage": "daemons_queues",
    "FakeDaemon": "daemons_server",
    "FakeQueue": "daemons_queues",
    "Frames": "daemons_conduct",
    "HEALTHY": "daemons_conduct",
    "Oddities": "daemons_conduct",
    "Raw": "daemons_conduct",
    "RemotedModel": "daemons_models",
    "ScriptExhausted": "daemons_server",
    "TaskManagerModel": "daemons_models",
    "WazuhDBModel": "daemons_wdb",
    "open_fake_daemon": "daemons_server",
    "open_fake_queue": "daemons_queues",
}

__all__ = [
    "CONDUCTS",
    "HEALTHY",
    "Act",
    "Answer",
    "AnswerCallback",
    "AnswerScript",
    "ArMessage",
    "AuthdModel",
    "ComponentModel",
    "Conduct",
    "EventMessage",
    "ExecMessage",
    "FakeDaemon",
    "FakeQueue",
    "Frames",
    "Oddities",
    "Raw",
    "RemotedModel",
    "ScriptExhausted",
    "TaskManagerModel",
    "WazuhDBModel",
    "open_fake_daemon",
    "open_fake_queue",
]


def __getattr__(name: str) -> object:
    if (module := _HOME.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
