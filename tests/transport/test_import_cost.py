"""What importing the blocking classes brings with it, and costs."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

#: What this is installed from.
ROOT = Path(__file__).parents[2]
HEAVY = {"trio", "attr", "attrs", "cattrs", "msgspec", "quart", "fastjsonschema", "asyncio", "hypercorn", "sniffio"}


def modules_after(program: str) -> set[str]:
    text = f"{program}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "program",
    [
        "import wazuh_comms_trio.transport.blocking.socket",
        "from wazuh_comms_trio.transport import WazuhSocket, WazuhSocketJSON, daemons, wazuh_sendsync",
        "from wazuh_comms_trio import WazuhQueue, WazuhAnalysisdQueue, WazuhError, create_wazuh_socket_message",
        "import wazuh_comms_trio.transport, wazuh_comms_trio.wire.wdb, wazuh_comms_trio.wire.event",
        "import wazuh_comms_trio; dir(wazuh_comms_trio)",
        "from wazuh_comms_trio.transport import HTTPClient, EngineHTTPClient, db_agent_groups, HTTPStatusError",
        "from wazuh_comms_trio.transport import WazuhServer, create_task, keystore_get, upgrade_agents",
        "from wazuh_comms_trio.transport import set_defaults, detect_release; set_defaults(release='5.0.0-beta3')",
    ],
)
def test_what_the_blocking_classes_bring(program: str) -> None:
    assert not modules_after(program) & HEAVY


def test_the_trio_classes_bring_neither_the_daemon_nor_what_is_used_later() -> None:
    brought = modules_after("import wazuh_comms_trio.transport.aio.socket, wazuh_comms_trio.transport.aio.protocol")
    assert "trio" in brought
    assert not brought & {"quart", "hypercorn", "msgspec", "cattrs", "fastjsonschema", "asyncio"}


def test_http_clients_are_imported_when_asked_for() -> None:
    brought = modules_after("from wazuh_comms_trio.transport import WazuhSocket, WazuhSocketJSON, open_pool, daemons")
    assert not brought & {"http.client", "h11"}
    assert not modules_after("from wazuh_comms_trio.transport import HTTPClient") & {"h11"}


def test_a_missing_extra_says_which() -> None:
    program = (
        "import sys; sys.modules['h11'] = None\n"
        "from wazuh_comms_trio.transport import HTTPClient, open_server, WazuhServer\n"
        "try:\n    from wazuh_comms_trio.transport import open_http\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert f"needs h11: pip install '{ROOT}[http]'" in done.stdout


def test_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LINE_COVERAGE", raising=False)  # measuring lines costs more

    def seconds(program: str) -> float:
        """Of the processor, so that a busy machine doesn't count."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    programs = ("pass", "import wazuh_comms_trio.transport.blocking.socket")
    rounds = [[seconds(program) for program in programs] for _ in range(9)]
    bare, with_import = (median(column) for column in zip(*rounds, strict=True))
    assert with_import - bare < 0.040


def test_what_the_bare_installation_lacks_is_said_with_its_extra() -> None:
    program = """
import sys
sys.modules.update(dict.fromkeys(("msgspec", "quart", "h11")))  # as if they weren't installed
from wazuh_comms_trio import testing, transport
for package, name in ((testing, "open_daemon"), (transport, "open_http")):
    try:
        getattr(package, name)
    except ModuleNotFoundError as error:
        print(error)
transport.WazuhSocket, transport.open_pool, transport.WazuhDBClient, testing.open_fake_daemon
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    daemon, http = done.stdout.splitlines()
    assert daemon.startswith("wazuh_comms_trio.testing.open_daemon needs ")
    assert daemon.endswith(f": pip install '{ROOT}[daemon]'")
    assert f"pip install '{ROOT}[http]'" in http
