"""``wazuh-comms config check --online``."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import LEAST, Tool
from tests.conftest import Certificates


@pytest.fixture
def file(config_file: Path, certificates: Certificates) -> Path:
    """One that can be used, on a free port."""
    key, cert = certificates.key, certificates.cert
    config_file.write_text(LEAST.replace("key: key.pem, cert: cert.pem", f"key: {key}, cert: {cert}"))
    return config_file


def levels(tool: Tool) -> dict[str, tuple[str, str]]:
    checked = tool("config", "check", "--online", "--json")
    found = {one["what"]: (one["level"], one["text"]) for one in checked.document["checks"]}
    assert checked.document["ok"] == (checked.status == 0) == all(level != "problem" for level, _ in found.values())
    return found


@pytest.mark.usefixtures("file")
def test_all_is_well(tool: Tool) -> None:
    found = levels(tool)
    assert {what: level for what, (level, _) in found.items()} == dict.fromkeys(
        ("agents' port", "command socket", "state", "agents' files", "certificate"), "ok"
    )
    assert "isn't there yet, and can be made" in found["state"][1]
    assert "localhost" in found["certificate"][1]
    lines = tool("config", "check", "--online").lines
    assert lines[0].endswith("can be used")
    assert any(line.startswith("ok       agents' port: 127.0.0.1:0 is free") for line in lines)


def test_a_port_in_use_and_a_missing_folder(tool: Tool, file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(file.read_text().replace("port: 0", f"port: {port}").replace("path: groups", "path: elsewhere"))
        found = levels(tool)
    assert found["agents' port"] == (
        "warning",
        f"127.0.0.1:{port} is in use, and our daemon doesn't run (a socket unit of ours may hold it)",
    )
    assert found["agents' files"] == ("problem", f"{file.parent / 'elsewhere'} is missing")


def test_the_operators_listener_and_the_command_socket(tool: Tool, file: Path) -> None:
    text, place = file.read_text(), file.parent / "o.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket(socket.AF_UNIX) as served:
        file.write_text(f'{text}  operators: {{listen: "127.0.0.1:{taken.getsockname()[1]}"}}\n')
        assert levels(tool)["operators' port"][0] == "warning"
        served.bind(str(place))
        served.listen(1)
        file.write_text(f"{text}  operators: {{listen: {place}}}\n")
        level, said = levels(tool)["operators' socket"]
        assert (level, said.split(",")[0]) == ("warning", f"{place} is in use")
    assert levels(tool)["operators' socket"] == ("ok", f"{place} can be made")  # what served it is gone
    (file.parent / "api.sock").write_text("somebody's own")
    file.write_text(f"{text}  operators: {{listen: {file.parent}/none/o.sock}}\n")
    found = levels(tool)
    assert found["command socket"] == ("problem", f"{file.parent / 'api.sock'} is there and isn't a socket")
    assert found["operators' socket"] == ("ok", f"{file.parent}/none/o.sock isn't there yet, nor is its folder")


def test_an_address_that_isnt_ours(tool: Tool, file: Path) -> None:
    file.write_text(file.read_text().replace("127.0.0.1", "192.0.2.1"))
    assert levels(tool)["agents' port"][0] == "problem"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as the service's user")
def test_what_root_can_and_the_services_user_cant(tool: Tool, file: Path, public_folder: Path) -> None:
    state = public_folder / "state"
    file.write_text(file.read_text().replace("path: state", f"path: {state}"))
    state.mkdir()
    os.chown(state, 4242, 4242)
    state.chmod(0o500)
    assert levels(tool)["state"] == ("problem", f"{state} can't be written to")
    assert os.geteuid() == 0


def test_a_file_that_cant_be_used_is_said_first(tool: Tool, file: Path) -> None:
    file.write_text(file.read_text() + "  nonsense: 1\n")
    checked = tool("config", "check", "--online")
    assert (checked.status, checked.out) == (78, "")
    assert "nonsense" in checked.err


def test_no_engine_and_no_indexer(tool: Tool, file: Path) -> None:
    text = file.read_text().replace("backend: embedded", "backend: wazuh")
    file.write_text(
        f"{text}engine: {{client: {{api_socket_path: engine.sock}}}}\n"
        "indexer: {hosts: [{host: 127.0.0.1, port: 1}], username: a, password: b, ssl: {use_ssl: false}}\n"
    )
    found = levels(tool)
    assert found["engine"] == ("problem", f"{file.parent / 'engine.sock'}: No such file or directory")
    assert any(what.startswith("indexer") and level == "problem" for what, (level, _) in found.items())


#: Looks, as a user who can't read the interpreter.
BLIND = """
import sys, trio
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.cli.online_check import look, prepare

class Nothing:
    def find_spec(self, name, path=None, target=None):
        raise AssertionError(f"{name} is imported as the service's user")

async def main():
    config = load_config(sys.argv[1]).config
    prepare(config)
    sys.meta_path.insert(0, Nothing())
    print(*[found.what async for found in look(config, running=False)], sep="\\n")

trio.run(main)
"""


@pytest.mark.parametrize("backend", ["embedded", "wazuh"])
def test_nothing_is_imported_as_the_services_user(file: Path, tmp_path: Path, backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    text = file.read_text().replace("backend: embedded", f"backend: {backend}")
    assert f"backend: {backend}" in text
    file.write_text(text + f"indexer:\n  hosts:\n    - {{host: 127.0.0.1, port: {port}}}\n")
    looked = subprocess.run(
        [sys.executable, "-c", BLIND, file], capture_output=True, text=True, cwd=file.parent, timeout=60, check=False
    )
    assert looked.returncode == 0, looked.stderr
    assert {"agents' port", "certificate"} < set(looked.stdout.splitlines())
