"""Everything the daemon listens on: opened here, or passed by the service manager."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio
from attrs import field, frozen

from wazuh_comms_trio.config.check import FileProblem, read_token_file
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.config.sections.operators import Operators
from wazuh_comms_trio.daemon.bound_sockets import open_tcp_listeners, open_unix_listener
from wazuh_comms_trio.daemon.exit_status import BadConfiguration
from wazuh_comms_trio.daemon.systemd import enabled_socket_unit, passed_descriptors
from wazuh_comms_trio.foundation.log_context import format_address
from wazuh_comms_trio.foundation.resources import raise_descriptor_limit

__all__ = ["ListenAddresses", "Listeners", "announce", "check_file_limit", "open_listeners", "operators_token"]

logger = logging.getLogger(__name__)

#: Files that aren't connections: the stores', logs, the event loop's.
FILES_WITHOUT_AGENTS: Final = 128
#: Room for fewer agents at once is worth a warning.
FEW_AGENTS: Final = 4096


@frozen
class Listeners:
    """Where requests come from, each a ``trio.abc.Listener`` of streams with a ``.socket``. The worker closes them."""

    api: Sequence[trio.abc.Listener[Any]]
    command: Sequence[trio.abc.Listener[Any]] = ()
    enrollment: Sequence[trio.abc.Listener[Any]] = ()
    #: The operators' process accepts there.
    operators: Sequence[trio.SocketListener] = ()


@frozen
class ListenAddresses:
    """Where the daemon listens, once it does. Ports are the real ones, also where the configuration says 0."""

    api: Sequence[tuple[str, int]]
    enrollment: Sequence[tuple[str, int]]
    command_socket: Path
    #: The operators' listener, as one writes it; None: there is none.
    operators: str | None = None
    #: What isn't as it was meant, a sentence each; for the log and for ``status``.
    warnings: Sequence[str] = ()


def announce(addresses: ListenAddresses) -> None:
    for warning in addresses.warnings:
        logger.warning("%s", warning)
    for address in addresses.api:
        logger.info("agents are served on https://%s", format_address(address))
    for address in addresses.enrollment:
        logger.info("agents can join on https://%s", format_address(address))
    logger.info("commands are taken on %s", addresses.command_socket)
    if addresses.operators is not None:
        logger.info("operators read on %s", addresses.operators)


def check_file_limit() -> None:
    """Raises the limit of open files, and warns where few agents find room under it."""
    limit = raise_descriptor_limit()
    if limit is None:
        return
    agents = limit - min(FILES_WITHOUT_AGENTS, limit // 2)
    if agents < FEW_AGENTS:
        logger.warning("at most %d files may be open, room for about %d agents at once in each worker", limit, agents)


@frozen
class _PassedListeners:
    """What the service manager opened, by what it is for."""

    api: list[trio.SocketListener] = field(factory=list)
    enrollment: list[trio.SocketListener] = field(factory=list)
    command: list[trio.SocketListener] = field(factory=list)


def listeners_of_passed_sockets(
    settings: CommunicationsApi, descriptors: Sequence[tuple[str, int]]
) -> _PassedListeners:
    """Listeners of passed descriptors. They win over the configuration's addresses; a port that isn't the
    configuration's is a mistake in one of the two. Raises ``BadConfiguration``."""
    passed = _PassedListeners()
    enrollment = settings.enrollment
    for name, descriptor in descriptors:
        where = f"the passed socket {name!r}"
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError as error:
            raise BadConfiguration(f"{where} can't be used: descriptor {descriptor}: {error.strerror}") from error
        sock.set_inheritable(False)
        sock.setblocking(False)
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise BadConfiguration(f"{where} is not a listening stream socket")
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        if sock.family == socket.AF_UNIX:
            passed.command.append(listener)
            continue
        port = sock.getsockname()[1]
        if enrollment is not None and (name == "enrollment" or (name != "agents" and port == enrollment.port)):
            _check_port(where, port, "communications_api.enrollment.port", enrollment.port)
            passed.enrollment.append(listener)
        else:
            _check_port(where, port, "communications_api.port", settings.port)
            passed.api.append(listener)
    return passed


def _check_port(where: str, port: int, key: str, configured: int) -> None:
    if configured not in (port, 0):
        raise BadConfiguration(f"{where} listens on port {port}, but {key} is {configured}: change one of the two")


def _missed_socket_unit() -> list[str]:
    unit = enabled_socket_unit()
    if unit is None:
        return []
    return [
        f"{unit} is enabled, but nothing was passed: connections are refused while the service restarts; `systemctl "
        f"status {unit}` says why, and a restart of the service starts both"
    ]


def operators_token(settings: CommunicationsApi) -> str | None:
    """The token of the operators' listener. Blocks. Raises ``BadConfiguration``."""
    if settings.operators is None or settings.operators.token_file is None:
        return None
    try:
        return read_token_file(settings.operators.token_file)
    except FileProblem as problem:
        raise BadConfiguration(f"{settings.operators.token_file} {problem}") from problem


def _shown(settings: Operators | None, listeners: Sequence[trio.SocketListener]) -> str | None:
    if settings is None:
        return None
    if isinstance(settings.address, Path):
        return settings.listen
    scheme = "http" if settings.ssl is None else "https"
    return f"{scheme}://{format_address(listeners[0].socket.getsockname())}"


@asynccontextmanager
async def open_listeners(settings: CommunicationsApi) -> AsyncIterator[tuple[Listeners, ListenAddresses]]:
    """Opens everything the daemon listens on. Raises ``StartError``, with nothing left open."""
    async with AsyncExitStack() as stack:

        async def listen(hosts: Sequence[str], port: int, what: str) -> list[trio.SocketListener]:
            opened = await open_tcp_listeners(hosts, port, what)
            for listener in opened:
                stack.push_async_callback(trio.aclose_forcefully, listener)
            return opened

        passed = listeners_of_passed_sockets(settings, passed_descriptors())
        for listener in (*passed.api, *passed.enrollment, *passed.command):
            stack.push_async_callback(trio.aclose_forcefully, listener)
        api = passed.api or await listen(settings.host, settings.port, "communications_api")
        enrollment = passed.enrollment
        if settings.enrollment is not None and not enrollment:
            enrollment = await listen(settings.enrollment.host, settings.enrollment.port, "enrollment")
        command = passed.command or [
            await stack.enter_async_context(open_unix_listener(settings.command_socket, "command_socket"))
        ]
        operators: list[trio.SocketListener] = []
        if settings.operators is not None:
            place = settings.operators.address
            if isinstance(place, Path):
                operators = [await stack.enter_async_context(open_unix_listener(place, "operators.listen"))]
            else:
                operators = await listen([place.host], place.port, "operators.listen")
        addresses = ListenAddresses(
            [listener.socket.getsockname()[:2] for listener in api],
            [listener.socket.getsockname()[:2] for listener in enrollment],
            settings.command_socket,
            _shown(settings.operators, operators),
            [] if passed.api else _missed_socket_unit(),
        )
        yield Listeners(api, command, enrollment, operators), addresses
