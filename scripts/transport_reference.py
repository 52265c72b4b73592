"""docs/transport-reference.md: every public name of ``wazuh_comms_trio.transport``, from its signature and its
docstring."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from wazuh_comms_trio import testing, transport
from wazuh_comms_trio.foundation.public_names import PUBLIC_NAMES

INTRODUCTION: Final = """\
# Transport: reference

Every public name of `wazuh_comms_trio.transport`, and of `wazuh_comms_trio.testing` the fakes of the daemons that it
talks to; how to use them is in [transport.md](transport.md). This page is made from the program by `scripts/make-docs`.

Conventions: times are float seconds, sizes are bytes. An error's number stands in front of what it means; all of them
are `WazuhException`s. *A checkpoint* is trio's word: other tasks may run and a cancellation may arrive there. A
deadline set by the caller (`trio.fail_after`) stays `trio.TooSlowError`; two tasks in one method of one connection are
`trio.BusyResourceError`.
"""

#: heading -> names, in the order in which they are shown
SECTIONS: Final[dict[str, str]] = {
    "Blocking sockets": "WazuhSocket WazuhSocketJSON",
    "Trio sockets": "WazuhAsyncSocket WazuhAsyncSocketJSON",
    "Request and answer for several tasks": "WazuhAsyncProtocol ConnectionState ProtocolStatistics Exchange Requests",
    "Connections for many tasks": "open_pool Pool PoolStatistics Connect",
    "wazuh-db": "WazuhDBClient open_wazuh_db WazuhDB PageStream RowStream WazuhDBSession",
    "Datagram queues": """
        BaseQueue WazuhQueue WazuhAnalysisdQueue BaseAsyncQueue WazuhAsyncQueue WazuhAsyncAnalysisdQueue
    """,
    "Commands to agents": """
        send_active_response send_command restart_agents restart_syscheck force_reconnect broadcast
        create_active_response create_script_command BroadcastReport NotReached
    """,
    "Events": "send_event",
    "Agents": "agent_ids agent_info assign_groups add_agent get_agent remove_agent EnrolledAgent ForceInsertion",
    "Status and configuration": """
        agent_status agent_state AgentStatus agents_stats daemon_stats agent_configuration daemon_configuration
        ask_agent
    """,
    "One call": "wazuh_sendasync wazuh_sendsync",
    "Messages": "create_wazuh_socket_message create_wazuh_queue_socket_msg create_event_header escape_location",
    "Registry": "daemons Daemon DaemonEntry register_daemon get_daemon daemons_under",
    "Releases": "set_defaults release_of detect_release Release",
    "HTTP": """
        open_http HTTPPool HTTPStatistics HTTPClient HTTPCall HTTPRequest HTTPAnswer WazuhDBHTTPClient
        get_wdb_http_client EngineHTTPClient VdHTTPClient ModulesdHTTPClient
    """,
    "HTTP calls": """
        db_agent_ids db_agent_groups db_agents_groups db_group_agents db_agents_summary db_agents_sync
        db_set_agents_sync db_restart_info db_all_agents AgentIDGroups AgentsSummary engine_metrics engine_status
        engine_events engine_request scanner_status scanner_offset scan_agent update_scanner inventory_metrics
        inventory_stateful delete_inventory remoted_metrics service_status
    """,
    "One server": "open_server AsyncServer WazuhServer OrderReport NotDone DaemonCall",
    "Calls to a server": """
        create_task get_pending_tasks PendingTask upgrade_agents upgrade_agents_custom UpgradeOptions upgrade_result
        task_status
        control host_address keystore_get keystore_put keystore_delete component_configuration module_query
        all_module_configurations reload_ruleset check_configuration
    """,
    "Validation": "register_schemas unregister_schemas validate_request validate_reply",
    "Paths and peers": "check_path PeerCredentials",
    "Errors": """
        use_framework_errors FRAMEWORK_NUMBERS
        WazuhException WazuhError WazuhInternalError FrameError TruncatedFrame EmptyFrame FrameTooLarge PeerClosed
        AnswerInvalid AnswerCut NoSuchAgent NotSynchronized MessageInvalid PayloadTooLarge EventTooLarge BacklogFull
        SocketTimeout QueueTimeout SendSyncError TransportError TransportClosed TransportBroken TransportPeerClosed
        TransportTruncatedFrame TransportEmptyFrame TransportFrameTooLarge QueueClosed QueueBroken TrioOnly
        DaemonRefusal NotInRelease HTTPError HTTPConnectError HTTPFailed HTTPTimeout HTTPAnswerInvalid
        HTTPStatusError RouteMissing
    """,
    "Constants": "SOCKET_COMMUNICATION_PROTOCOL_VERSION HOME AR_QUEUE EXECQ_QUEUE ANALYSISD_QUEUE",
}

#: the same for the fakes, which are in another package
TESTING_SECTIONS: Final[dict[str, str]] = {
    "Testing: daemons that speak in frames": """
        open_fake_daemon FakeDaemon Answer AnswerCallback AnswerScript Act Frames Raw ScriptExhausted
    """,
    "Testing: daemons that speak HTTP": """
        open_fake_http FakeHTTPDaemon FakeRequest FakeReply HTTPCallback HTTPConduct
    """,
    "Testing: datagram queues": "open_fake_queue FakeQueue ArMessage EventMessage ExecMessage",
    "Testing: how daemons behave": "Conduct CONDUCTS Oddities HEALTHY",
    "Testing: models of daemons": """
        WazuhDBModel AuthdModel RemotedModel TaskManagerModel ComponentModel UpgradeModel ControlModel
    """,
    "Testing: models of 5.0's daemons": """
        AgentTasksModel KeystoreModel WazuhDBModel5 AuthdModel5 RemotedModel5 WazuhDBHTTPModel EngineModel
        ScannerModel InventoryModel RemotedAdminModel
    """,
}

_FAKES: Final = "wazuh_comms_trio.testing.daemons."
#: public name -> the module that has it
_PUBLIC: Final = PUBLIC_NAMES[transport.__name__] | {
    name: module for name, module in PUBLIC_NAMES[testing.__name__].items() if module.startswith(_FAKES)
}

_WIDTH: Final = 120


def reference() -> str:
    """The page. ``ValueError`` when a public name is in no section, or in several."""
    sections = {heading: names.split() for heading, names in (SECTIONS | TESTING_SECTIONS).items()}
    shown = [name for names in sections.values() for name in names if name in _PUBLIC]
    if missing := _PUBLIC.keys() - set(shown):
        raise ValueError(f"in no section of the reference: {', '.join(sorted(missing))}")
    if len(shown) != len(set(shown)):
        raise ValueError("a name is in two sections of the reference")
    parts = [INTRODUCTION, "\n".join(f"- [{heading}](#{_anchor(heading)})" for heading in sections)]
    for heading, names in sections.items():
        parts.append(f"## {heading}")
        for name in names:
            if name in _PUBLIC:
                parts += _entry(name)
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _entry(name: str) -> Iterator[str]:
    value = getattr(_module_of(name), name)
    yield f"### {name}"
    if inspect.isclass(value):
        yield from _class(name, value)
    elif callable(value) and inspect.isroutine(inspect.unwrap(value)):
        yield _code(_signature(name, value))
        yield _prose(inspect.getdoc(value) or "")
    else:
        comment = _comment_of(_module_of(name), name)
        shown = f" = {value!r}" if isinstance(value, str | int) else ""
        yield _code(f"{name}{shown}")
        if comment:
            yield _prose(comment)


def _class(name: str, value: type) -> Iterator[str]:
    bases = ", ".join(_base(base) for base in value.__bases__ if base is not object)
    yield _code(_constructor(name, value) + (f"\n# a {bases}" if bases else ""))
    yield _prose(inspect.getdoc(value) or "")
    if attributes := list(_attributes(value)):
        yield "\n".join(attributes)
    inherited: dict[str, list[str]] = {}
    for method, function, owner in _methods(value):
        if owner is not value and owner.__name__ in _PUBLIC:
            inherited.setdefault(owner.__name__, []).append(f"`{method}`")
            continue
        label = "property" if isinstance(function, property) else ""
        callee = function.fget if isinstance(function, property) else getattr(function, "__func__", function)
        signature = _signature(method, callee, drop_self=True) if not label else method
        prefix = "async " if _is_async(callee) and not label else ""
        if _is_context(callee):
            prefix, signature = "async with ", re.sub(r" -> AsyncIterator\[(.*)\]$", r" as \1", signature)
        yield f"#### `{prefix}{name}.{signature}`" + (f" ({label})" if label else "")
        yield _prose(inspect.getdoc(function) or "")
    for owner_name, methods in inherited.items():
        yield f"From {owner_name}: {', '.join(methods)}."


def _constructor(name: str, value: type) -> str:
    if issubclass(value, BaseException) and "__init__" not in vars(value):
        return name
    if hasattr(value, "__members__") or "Made by ``" in (value.__doc__ or ""):
        return name
    try:
        return _signature(name, value)
    except (TypeError, ValueError):
        return name


def _signature(name: str, function: Any, *, drop_self: bool = False) -> str:
    signature = inspect.signature(function)
    parameters = [one.replace(annotation=_Unquoted.of(one.annotation)) for one in signature.parameters.values()]
    if drop_self and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    returned = _Unquoted.of(signature.return_annotation)
    text = str(signature.replace(parameters=parameters, return_annotation=returned))
    asynchronous = "async " if _is_async(function) and not drop_self else ""
    if _is_context(function) and not drop_self:
        asynchronous, text = "async with ", re.sub(r" -> AsyncIterator\[(.*)\]$", r" as \1", text)
    text = re.sub(r" = <[^>]* at 0x[^>]*>", " = ...", text)
    line = f"{asynchronous}{name}{text}"
    if len(line) <= 100 or drop_self:
        return line
    inner = ",\n    ".join(_split(text[1 : text.rindex(")")]))
    return f"{asynchronous}{name}(\n    {inner},\n{text[text.rindex(')') :]}"


class _Unquoted(str):
    """An annotation that was written as text, shown without quotes."""

    @staticmethod
    def of(annotation: Any) -> Any:
        text = getattr(annotation, "__forward_arg__", annotation)
        return _Unquoted(text) if isinstance(text, str) else annotation

    def __repr__(self) -> str:
        return str(self)


def _split(parameters: str) -> Iterator[str]:
    """At the commas that are in no brackets."""
    depth, begin = 0, 0
    for position, char in enumerate(parameters):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and not depth:
            yield parameters[begin:position].strip()
            begin = position + 1
    yield parameters[begin:].strip()


def _is_async(function: Any) -> bool:
    plain = inspect.unwrap(function) if callable(function) else function
    return inspect.iscoroutinefunction(plain)


def _is_context(function: Any) -> bool:
    """Made by ``asynccontextmanager``."""
    return inspect.isasyncgenfunction(inspect.unwrap(function)) and hasattr(function, "__wrapped__")


def _base(base: type) -> str:
    module = base.__module__.split(".")[0]
    return f"trio.{base.__name__}" if module == "trio" else base.__name__


def _attributes(value: type) -> Iterator[str]:
    """Fields and constants that are annotated or assigned in the class bodies, with the comments before them."""
    seen = set()
    for base in value.__mro__:
        if not base.__module__.startswith("wazuh_comms_trio") or base.__name__ == "WazuhException":
            continue
        if base is not value and base.__name__ in _PUBLIC:
            continue
        if base is not value and hasattr(value, "__members__"):
            continue
        for name, annotation, default, comment in _body(base):
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            form = f"`{name}{f': {annotation}' if annotation else ''}{f' = {default}' if default else ''}`"
            yield f"- {form}{f': {_inline(comment)}' if comment else ''}"


def _body(value: type) -> Iterator[tuple[str, str, str, str]]:
    try:
        source = textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        return
    lines = source.splitlines()
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    for statement in node.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=default):
                shown = ast.unparse(default) if isinstance(default, ast.Constant) else ""
                yield name, ast.unparse(annotation), shown, _above(lines, statement.lineno)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant() as constant):
                yield name, "", ast.unparse(constant), _above(lines, statement.lineno)
            case _:
                pass


def _above(lines: list[str], number: int) -> str:
    """The ``#:`` comment that ends right above a line."""
    comment: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.strip().startswith("#:"):
            break
        comment.insert(0, line.strip().removeprefix("#:").strip())
    return " ".join(comment)


def _methods(value: type) -> Iterator[tuple[str, Any, type]]:
    """Public methods with a docstring and the class they are from, own ones before inherited ones."""
    seen = set()
    for base in value.__mro__:
        if not base.__module__.startswith("wazuh_comms_trio"):
            continue
        for name, function in vars(base).items():
            public = not name.startswith("_") or name in ("__anext__", "__aiter__", "__add__")
            documented = inspect.isroutine(function) or isinstance(function, property | classmethod)
            if public and documented and name not in seen and inspect.getdoc(function):
                seen.add(name)
                if name != "__aiter__" or function.__doc__:
                    yield name, function, base


def _module_of(name: str) -> ModuleType:
    return import_module(_PUBLIC[name])


def _comment_of(module: ModuleType, name: str) -> str:
    lines = inspect.getsource(module).splitlines()
    for number, line in enumerate(lines, 1):
        if re.match(rf"{name}\b *[:=]", line):
            return _above(lines, number)
    return ""


def _prose(doc: str) -> str:
    """A docstring as Markdown: reStructuredText's marks are few here. Tables and examples stay as they are."""
    return "\n".join(_inline(line) for line in doc.splitlines()).replace("::\n", ":\n")


def _inline(line: str) -> str:
    line = re.sub(r":(?:class|func|meth|mod|attr|data):`[.~]*([^`]+)`", r"`\1`", line)
    return line.replace("``", "`")


def _code(text: str) -> str:
    return f"```py\n{text}\n```"


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    print(reference(), end="")
