"""Every program in docs/transport.md is run against fakes of the whole server, and prints what the page says."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from wazuh_comms_trio import transport
from wazuh_comms_trio.testing import (
    AgentTasksModel,
    AuthdModel,
    EngineModel,
    FakeQueue,
    KeystoreModel,
    RemotedModel,
    TaskManagerModel,
    UpgradeModel,
    WazuhDBHTTPModel,
    WazuhDBModel,
    open_fake_daemon,
    open_fake_http,
    open_fake_queue,
)
from wazuh_comms_trio.transport import unregister_schemas
from wazuh_comms_trio.transport.registry import _registered, daemons

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/transport.md"


class Program(NamedTuple):
    heading: str
    line: int
    code: str
    output: str


def programs() -> Iterator[Program]:
    """The page's programs with what the block after each says that they print."""
    text = PAGE.read_text()
    for match in re.finditer(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", text, re.DOTALL):
        before = text[: match.start()]
        heading = re.findall(r"^#+ (.*)$", before, re.MULTILINE)[-1]
        yield Program(heading, before.count("\n") + 2, match[1], match[2] or "")


def database() -> WazuhDBModel:
    model = WazuhDBModel(page_rows=10)
    for number in range(1, 26):
        model.add_agent(number, f"agent-{number}", connection_status="active" if number % 2 else "disconnected")
    model.packages[1] = [{"name": "bash", "version": "5.2"}, {"name": "zsh", "version": None}]
    return model


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Path, FakeQueue, FakeQueue]]:
    """All daemons of a server under a home folder."""
    remoted = RemotedModel(states={("001", "agent"): {"status": "connected"}})
    tasks = TaskManagerModel({1: {"status": "Updated"}})
    async with (
        open_fake_daemon("wazuh-db", database(), home=tmp_path),
        open_fake_daemon("authd", AuthdModel(), home=tmp_path),
        open_fake_daemon("remoted", remoted, home=tmp_path),
        open_fake_daemon("task-manager", tasks, home=tmp_path),
        open_fake_queue("ar", home=tmp_path) as ar,
        open_fake_queue("analysisd", home=tmp_path) as analysisd,
    ):
        yield tmp_path, ar, analysisd


@asynccontextmanager
async def server_of_4(home: Path) -> AsyncIterator[None]:
    """What the page asks of a server of 4.14.2."""
    agents = {1: {"connection_status": "active"}, 2: {"connection_status": "active"}}
    model = WazuhDBHTTPModel("4.14.2", agents, {1: ["default", "web"]})
    async with open_fake_http("wdb-http", model, home=home, release="4.14.2"):
        yield


@asynccontextmanager
async def server_of_5(home: Path) -> AsyncIterator[None]:
    """What the page asks of a server of 5.0.0."""
    versions = {1: {"version": "Wazuh v5.0.0"}, 2: {"version": "Wazuh v4.14.2"}}
    where: dict[str, Any] = {"home": home, "release": "5.0.0"}
    async with (
        open_fake_daemon("task-manager", AgentTasksModel(), **where),
        open_fake_daemon("keystore", KeystoreModel({("indexer", "username"): "admin"}), **where),
        open_fake_daemon("upgrade", UpgradeModel(), **where),
        open_fake_http("wdb-http", WazuhDBHTTPModel(agents=versions, groups={1: ["default", "web"]}), **where),
        open_fake_http("engine", EngineModel(), **where),
    ):
        yield


SERVERS = {"4.14.2": server_of_4, "5.0.0": server_of_5}


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """What a program registers is forgotten."""
    before, shown = dict(_registered), dict(daemons)
    yield
    for mapping, old in ((_registered, before), (daemons, shown)):
        mapping.clear()
        mapping.update(old)  # type: ignore[arg-type]
    unregister_schemas("inventory")


def run_program(code: str, name: str) -> str:
    """As a script of its own would run, in this thread; returns what it printed."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code, name, "exec"), {"__name__": "__main__"})  # noqa: S102 -- the page's own programs
    return printed.getvalue()


@pytest.mark.parametrize("program", list(programs()), ids=lambda program: program.heading)
async def test_programs_of_the_page(program: Program, server: tuple[Path, FakeQueue, FakeQueue]) -> None:
    home, ar, analysisd = server
    code = program.code.replace("/var/ossec", str(home)).replace(
        "open_wazuh_db()", f"open_wazuh_db(home={str(home)!r})"
    )
    code = re.sub(r'open_pool\(("[a-z-]+")\)', rf"open_pool(\1, home={str(home)!r})", code)
    code = code.replace("WazuhDBClient(", f"WazuhDBClient(home={str(home)!r}, ")
    code = re.sub(r"(wazuh_sendsync\('[a-z-]+', [^)]*)\)", rf"\1, home={str(home)!r})", code)
    async with AsyncExitStack() as stack:
        for release, server_of in SERVERS.items():
            if f'release="{release}"' in code and "open_fake_" not in code:
                elsewhere = home / release
                await stack.enter_async_context(server_of(elsewhere))
                code = code.replace(f'release="{release}"', f'release="{release}", home={str(elsewhere)!r}')
        source = "\n" * (program.line - 1) + code
        printed = await trio.to_thread.run_sync(run_program, source, str(PAGE))
    assert printed == program.output
    await trio.testing.wait_all_tasks_blocked()
    assert ar.dropped == analysisd.dropped == [], "the queues' readers understood everything"
    if "WazuhAnalysisdQueue" in program.code:
        assert len(analysisd.messages) == 1


def test_the_five_published_examples_are_on_the_page() -> None:
    text = PAGE.read_text()
    for words in (
        "with WazuhSocketJSON('/var/ossec/queue/sockets/wdb') as sock:",
        "await sock.connect('/var/ossec/queue/sockets/task')",
        "with WazuhQueue('/var/ossec/queue/alerts/ar') as queue:",
        "with WazuhAnalysisdQueue('/var/ossec/queue/sockets/queue') as queue:",
        "sock.send(message_bytes)",
    ):
        assert words in text


def test_names_on_the_page_are_public() -> None:
    """What the migration table and the prose name exists."""
    text = PAGE.read_text()
    imported = {
        name.strip()
        for block in re.findall(r"from wazuh_comms_trio\.transport import ([^\n]*)", text)
        for name in block.split(",")
    }
    assert imported <= set(transport.__all__)
    for right in re.findall(r"^\| `wazuh[^|]*\|([^|]*)\|$", text, re.MULTILINE):
        for name in re.findall(r"`(?:transport\.)?([A-Za-z]\w+)(?:\(\))?`", right):
            known = name in transport.__all__ or hasattr(transport.WazuhDB, name) or name == "header_format"
            assert known, name


def test_reference_is_complete_and_current() -> None:
    """Every public name has a section, and the page is what the program says now."""
    spec = importlib.util.spec_from_file_location("transport_reference", ROOT / "scripts/transport_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.reference()
    for name in transport.__all__:
        assert f"\n### {name}\n" in text
    assert (ROOT / "docs/transport-reference.md").read_text() == text, "run scripts/make-docs"


def test_every_public_name_is_explained() -> None:
    for name in transport.__all__:
        value = getattr(transport, name)
        if callable(value) and getattr(value, "__module__", "").startswith("wazuh_comms_trio"):
            assert value.__doc__, name


def test_the_page_says_nothing_of_this_machine() -> None:
    for page in (PAGE, ROOT / "docs/transport-reference.md"):
        assert os.path.expanduser("~") + "/" not in page.read_text()
        assert sys.prefix not in page.read_text()
