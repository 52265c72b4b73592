"""``wazuh-comms indexer``: prepares an indexer, and says what is wrong with one."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_BAD_CONFIGURATION, EXIT_FAILED, Failure, printable

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.opensearch.admin.check import Finding
    from wazuh_comms_trio.config.backend_models import Indexer


def add_parser(parent: Group) -> None:
    indexer = parent.group("indexer", help="prepare or check the indexer of `backend: wazuh`")
    indexer.command(
        "init", _init, help="make the index templates and indices that are missing; changes nothing that exists"
    )
    indexer.command(
        "check",
        _check,
        help="check connection, versions, permissions, mappings and clocks, a line each; 1 if there is a problem",
    )


def _settings(arguments: Namespace) -> Indexer:
    from wazuh_comms_trio.cli.stores import read_config

    return read_config(arguments).indexer


async def _init(arguments: Namespace) -> int:
    from wazuh_comms_trio.backends.opensearch.admin.init import Step, init_indexer
    from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
    from wazuh_comms_trio.backends.opensearch.client.credentials import AccessError
    from wazuh_comms_trio.cli.stores import open_session

    session = open_session(arguments)
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
    lines = [
        f"{'made  ' if step.made else 'exists'}  {step.what:8}  {step.name}"
        + (f" ({step.found})" if step.found not in ("", step.name) else "")
        for step in steps
    ]
    document = [{"what": step.what, "name": step.name, "made": step.made, "found": step.found} for step in steps]
    session.output.document(document, "\n".join(lines))
    return 0


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
