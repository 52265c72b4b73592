"""What ``wazuh-comms config check --online`` looks at: what a configuration needs of this machine and of others."""

from __future__ import annotations

import codecs
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final, Literal

import trio
from attrs import frozen

from wazuh_comms_trio.config.check import FileProblem, read_certificates
from wazuh_comms_trio.config.models import CommunicationsApi, Config
from wazuh_comms_trio.daemon.bound_sockets import is_served
from wazuh_comms_trio.foundation.log_context import format_address

__all__ = ["Finding", "look", "prepare"]

#: Seconds for an answer of the engine's socket.
_TIMEOUT: Final = 5.0


@frozen
class Finding:
    """One thing that was looked at; ``text`` is a sentence's end."""

    level: Literal["ok", "warning", "problem"]
    what: str
    text: str


def prepare(config: Config) -> None:
    """Imports what ``look`` needs, before this process becomes the service's user, who may not be able to read an
    interpreter or a library of somebody else's."""
    codecs.lookup("idna")  # which names of hosts are looked up with
    if config.communications_api.backend == "wazuh":
        from wazuh_comms_trio.backends.opensearch.admin import check  # noqa: F401


async def look(config: Config, *, running: bool) -> AsyncIterator[Finding]:
    """As the user that this process is now. ``running``: our daemon serves, so that its ports are taken. Binds and lets
    go of ports; changes nothing else."""
    settings = config.communications_api
    for finding in _listeners(settings, running=running):
        yield finding
    for finding in _folders(settings):
        yield finding
    yield _certificate(settings)
    if settings.backend == "wazuh":
        yield await _engine(config.engine.client.api_socket_path)
        from wazuh_comms_trio.backends.opensearch.admin.check import check_indexer
        from wazuh_comms_trio.backends.opensearch.client.credentials import AccessError

        try:
            async for found in check_indexer(config.indexer):
                remedy = f"; {found.remedy}" if found.remedy else ""
                yield Finding(_level(found.level), f"indexer: {found.what}", f"{found.text}{remedy}")
        except AccessError as error:
            yield Finding("problem", "indexer", str(error))


def _level(word: str) -> Literal["ok", "warning", "problem"]:
    return "problem" if word == "problem" else "warning" if word == "warning" else "ok"


def _listeners(settings: CommunicationsApi, *, running: bool) -> Iterator[Finding]:
    ports = [("agents' port", settings.host, settings.port)]
    sockets = [("command socket", settings.command_socket)]
    if settings.enrollment is not None:
        ports.append(("enrolment's port", settings.enrollment.host, settings.enrollment.port))
    if settings.operators is not None:
        address = settings.operators.address
        if isinstance(address, Path):
            sockets.append(("operators' socket", address))
        else:
            ports.append(("operators' port", (address.host,), address.port))
    for what, hosts, port in ports:
        for host in hosts:
            yield _port(what, host, port, running=running)
    for what, path in sockets:
        yield _socket(what, path, running=running)


def _port(what: str, host: str, port: int, *, running: bool) -> Finding:
    address = format_address((host, port))
    try:
        family, kind, _, _, bound = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(bound)
            sock.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            if running:
                return Finding("ok", what, f"{address} is held, by the running daemon or its socket unit")
            text = f"{address} is in use, and our daemon doesn't run (a socket unit of ours may hold it)"
            return Finding("warning", what, text)
        if error.errno == errno.EACCES:
            text = f"{address} needs the right to bind low ports, which the service's unit gives"
            return Finding("warning", what, text)
        return Finding("problem", what, f"{address}: {error.strerror or error}")
    return Finding("ok", what, f"{address} is free")


def _socket(what: str, path: Path, *, running: bool) -> Finding:
    """A Unix socket's place. Its folder may be one that the service's unit makes."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return Finding("problem", what, f"{path} is there and isn't a socket")
        if is_served(path):
            if running:
                return Finding("ok", what, f"{path} is held, by the running daemon or its socket unit")
            text = f"{path} is in use, and our daemon doesn't run (a socket unit of ours may hold it)"
            return Finding("warning", what, text)
    except FileNotFoundError:
        if not path.parent.exists():
            return Finding("ok", what, f"{path} isn't there yet, nor is its folder")
    except OSError as error:
        return Finding("problem", what, f"{path}: {error.strerror}")
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        return Finding("problem", what, f"{path.parent} can't be written to")
    return Finding("ok", what, f"{path} can be made")


def _folders(settings: CommunicationsApi) -> Iterator[Finding]:
    yield _folder("state", settings.embedded.path, os.R_OK | os.W_OK | os.X_OK)
    yield _folder("agents' files", settings.files.path, os.R_OK | os.X_OK)
    if settings.logging.file is not None:
        yield _folder("log", settings.logging.file.parent, os.W_OK | os.X_OK)


def _folder(what: str, folder: Path, mode: int) -> Finding:
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            return Finding("problem", what, f"{folder} isn't a folder")
    except FileNotFoundError:
        above = next(path for path in folder.parents if path.exists())
        made = os.access(above, os.W_OK | os.X_OK, effective_ids=True)
        if what == "state" and made:
            return Finding("ok", what, f"{folder} isn't there yet, and can be made")
        return Finding("problem", what, f"{folder} is missing")
    except OSError as error:
        return Finding("problem", what, f"{folder}: {error.strerror}")
    if not os.access(folder, mode, effective_ids=True):
        rights = "written to" if mode & os.W_OK else "read"
        return Finding("problem", what, f"{folder} can't be {rights}")
    return Finding("ok", what, f"{folder} can be used")


def _certificate(settings: CommunicationsApi) -> Finding:
    from cryptography import x509

    try:
        certificate = read_certificates(settings.ssl.cert)[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except FileProblem as problem:
        return Finding("problem", "certificate", f"{settings.ssl.cert} {problem}")
    except x509.ExtensionNotFound:
        return Finding("warning", "certificate", "has no names (subjectAltName); who verifies names gets nowhere")
    shown = ", ".join(str(name.value) for name in names)
    end = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    return Finding("ok", "certificate", f"is for {shown}; agents must use one of these; until {end}")


async def _engine(path: Path) -> Finding:
    try:
        with trio.fail_after(_TIMEOUT):
            stream = await trio.open_unix_socket(path)
            await stream.aclose()
    except trio.TooSlowError:
        return Finding("problem", "engine", f"{path} takes no connection within {_TIMEOUT:g} s")
    except OSError as error:
        return Finding("problem", "engine", f"{path}: {error.strerror or error}")
    return Finding("ok", "engine", f"{path} takes connections")
