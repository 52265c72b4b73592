"""``wazuh-comms indexer``: prepares an indexer, and says what is wrong with one."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from wazuh_comms_trio.cli import arguments as types
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_BAD_CONFIGURATION, EXIT_FAILED, Failure
from wazuh_comms_trio.foundation.journal import printable

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.opensearch.admin.check import Finding
    from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
    from wazuh_comms_trio.backends.opensearch.client.found import Found
    from wazuh_comms_trio.cli.stores import Session
    from wazuh_comms_trio.config.backend_models import Indexer
    from wazuh_comms_trio.config.models import Config


def add_parser(parent: Group) -> None:
    indexer = parent.group("indexer", help="prepare or check the indexer of `backend: wazuh`")
    indexer.command(
        "init", _init, help="make the index templates and indices that are missing; changes nothing that exists"
    )
    indexer.command(
        "check",
        _check,
        help="check connection, versions, permissions, mappings, clocks and documents, a line each; 1 if there is a "
        "problem",
    )
    show = indexer.command("show", _show, help="show a document that can't be read, as it stands there")
    remove = indexer.command("remove", _remove, help="remove a document that can't be read, and no other")
    for parser in (show, remove):
        parser.add_argument("document", metavar="INDEX/ID", type=_document)


def _document(text: str) -> tuple[str, str]:
    from wazuh_comms_trio.backends.opensearch.admin.unreadable import split_name

    try:
        return split_name(types.text(text))
    except ValueError as exc:
        raise ArgumentTypeError(str(exc)) from None


def _settings(arguments: Namespace) -> Indexer:
    from wazuh_comms_trio.cli.stores import read_config

    config = read_config(arguments)
    check_backend(config)
    return config.indexer


def check_backend(config: Config) -> None:
    """Raises ``Failure`` where the configuration has no indexer."""
    if config.communications_api.backend != "wazuh":
        raise Failure("there is no indexer: the configuration says `backend: embedded`", EXIT_BAD_CONFIGURATION)


async def _init(arguments: Namespace) -> int:
    from wazuh_comms_trio.backends.opensearch.admin.init import Step, init_indexer
    from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
    from wazuh_comms_trio.backends.opensearch.client.credentials import AccessError
    from wazuh_comms_trio.cli.output import lines
    from wazuh_comms_trio.cli.stores import open_session

    session = open_session(arguments)
    check_backend(session.config)
    settings = session.config.indexer

    folder = session.audit.path.parent

    def note(step: Step) -> None:
        if step.made:
            with session.acting_as_owner(folder):
                session.changed("indexer init", step.name, what=step.what)

    with session.acting_as_owner(folder):
        session.prepare_change()
    try:
        async with OpenSearchClient(settings) as client:
            steps = await init_indexer(client, settings.names, note=note)
    except AccessError as exc:
        raise Failure(str(exc), EXIT_BAD_CONFIGURATION) from exc
    except IndexerUnavailable as exc:
        raise Failure(f"{exc}; `wazuh-comms indexer check` says more") from exc
    shown = [
        f"{'made  ' if step.made else 'exists'}  {step.what:8}  {step.name}"
        + (f" ({step.found})" if step.found not in ("", step.name) else "")
        for step in steps
    ]
    document = [{"what": step.what, "name": step.name, "made": step.made, "found": step.found} for step in steps]
    session.output.document(document, lines(shown))
    return 0


async def _show(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.output import pairs

    session, settings = _session(arguments)
    async with _client(settings) as client:
        found = await _get(client, settings, arguments)
    if found.problem is None:
        raise Failure(f"{found.index}/{found.id} can be read: `wazuh-comms agents`, `commands` show what is in it")
    text = found.unreadable().text
    document = {"index": found.index, "id": found.id, "problem": found.problem, "text": text}
    shown = {"index": found.index, "id": found.id, "can't be read": found.problem, "text": text}
    session.output.document(document, pairs(shown))
    return 0


async def _remove(arguments: Namespace) -> int:
    from wazuh_comms_trio.backends.opensearch.admin.unreadable import remove_unreadable

    session, settings = _session(arguments)
    index, document_id = arguments.document
    with session.acting_as_owner(session.audit.path.parent):
        session.prepare_change()
        async with _client(settings) as client:
            found = await _get(client, settings, arguments)
            if found.problem is None:
                raise Failure(f"{index}/{document_id} can be read: it isn't removed")
            if not await remove_unreadable(client, found):
                raise Failure(f"{index}/{document_id} has just been changed: look again")
        session.changed("indexer remove", f"{index}/{document_id}", why=found.problem)
    session.output.document({"index": index, "id": document_id, "removed": True}, f"removed {index}/{document_id}")
    return 0


def _session(arguments: Namespace) -> tuple[Session, Indexer]:
    from wazuh_comms_trio.cli.stores import open_session

    session = open_session(arguments)
    check_backend(session.config)
    return session, session.config.indexer


@asynccontextmanager
async def _client(settings: Indexer) -> AsyncIterator[OpenSearchClient]:
    """An indexer's client that logs nothing by itself. Raises ``Failure`` where our account's files can't be used."""
    from wazuh_comms_trio.backends.opensearch.client.client import OpenSearchClient
    from wazuh_comms_trio.backends.opensearch.client.credentials import AccessError
    from wazuh_comms_trio.backends.unreadable import UnreadableLog

    try:
        async with OpenSearchClient(settings) as client:
            client.unreadable = UnreadableLog(silent=True)
            yield client
    except AccessError as exc:
        raise Failure(str(exc), EXIT_BAD_CONFIGURATION) from exc


async def _get(client: OpenSearchClient, settings: Indexer, arguments: Namespace) -> Found:
    from wazuh_comms_trio.backends.opensearch.admin.unreadable import get_document

    index, document_id = arguments.document
    found = await get_document(client, index, document_id, settings.names)
    if found is None:
        raise Failure(f"there is no document {index}/{document_id}")
    return found


async def _check(arguments: Namespace) -> int:
    from wazuh_comms_trio.backends.opensearch.admin.check import check_indexer
    from wazuh_comms_trio.backends.opensearch.client.credentials import AccessError
    from wazuh_comms_trio.cli.output import Output

    settings = _settings(arguments)
    findings: list[Finding] = []
    try:
        async for finding in check_indexer(settings):
            findings.append(finding)
            if not arguments.json:
                print(printable(_line(finding)), flush=True)
    except AccessError as exc:
        raise Failure(str(exc), EXIT_BAD_CONFIGURATION) from exc
    sound = all(finding.level != "problem" for finding in findings)
    checks = [{"level": f.level, "what": f.what, "text": f.text, "remedy": f.remedy or None} for f in findings]
    Output(as_json=arguments.json).document({"ok": sound, "checks": checks}, "")
    return 0 if sound else EXIT_FAILED


def _line(finding: Finding) -> str:
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    return f"{finding.level:7}  {finding.what}: {finding.text}{remedy}"
