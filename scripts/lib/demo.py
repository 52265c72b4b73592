"""The daemon for trying out: certificates, a configuration, a demo agent, and what to do next. Started by
scripts/run."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio
from attrs import asdict, frozen
from demo_certificates import make_certificates
from demo_hints import hints

from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.cli.commands.agents import new_uuid
from wazuh_comms_trio.cli.program import Failure, Parser, run_program
from wazuh_comms_trio.config.load import LoadedConfig, load_config
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.daemon.process import ListenAddresses, run_daemon
from wazuh_comms_trio.foundation.timestamps import to_iso
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key, new_key

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SOCKET_PATH = 107
#: linux/prctl.h
PR_SET_PDEATHSIG = 1
DEFAULT_PORTS = {"--port": 27000, "--enrollment-port": 55000}

CONFIGURATION = """\
# Made by scripts/run, and kept from then on: change it and start again. All keys: docs/configuration.md
communications_api:
  host: {hosts}
  port: {port}  # set by scripts/run --port
  workers: 1  # scripts/run starts one in any case; `wazuh-comms-apid --config FILE` as many as FILE says
  logging:
    level: info
  ssl:
    key: certs/server-key.pem
    cert: certs/server.pem
  backend: embedded
  embedded:
    path: state
  files:
    path: groups
  command_socket: {command_socket}
  enrollment:
    host: {hosts}
    port: {enrollment_port}  # set by scripts/run --enrollment-port
    users:
      {user}: {password_hash}
"""


@frozen
class Demo:
    """What is made once and kept in demo.json: the agent that is enrolled, and the user who may enrol others."""

    uuid: str
    name: str
    key: str
    user: str
    password: str


def main() -> int:
    parser = Parser(prog="scripts/run", description="Starts the daemon for trying out. Ctrl-C ends it.")
    parser.add_argument("--port", metavar="N", type=port, help="of the agents' API (default: 27000)")
    parser.add_argument("--enrollment-port", metavar="N", type=port, help="where agents join (default: 55000)")
    parser.add_argument("--state", metavar="DIR", type=Path, default=ROOT / "var", help="default: %(default)s")
    arguments = parser.parse_args()
    return run_program("scripts/run", lambda: run(arguments))


def port(word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", word) or not 0 < int(word) < 65536:
        raise argparse.ArgumentTypeError(f"{word!r} isn't a port")
    return int(word)


def run(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.state.absolute()
    file = folder / "wazuh-server.yml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        make_certificates(folder / "certs")
        demo = read_or_make_demo(folder / "demo.json")
        ports = {"--port": arguments.port, "--enrollment-port": arguments.enrollment_port}
        write_configuration(file, demo, ports)
        make_groups(folder / "groups")
    except OSError as error:
        raise Failure(f"the state can't be kept in {folder}: {error.strerror or error}") from error
    loaded = load_config(file)
    check_ports(loaded.config)
    trio.run(enrol, loaded.config, demo)
    return serve(loaded, demo, folder)


def serve(loaded: LoadedConfig, demo: Demo, folder: Path) -> int:
    def ready(addresses: ListenAddresses) -> None:
        enrollment = addresses.enrollment[0][1] if addresses.enrollment else None
        print(hints(folder, asdict(demo), addresses.api[0][1], enrollment), flush=True)
        print("What agents send is shown here as it comes:", flush=True)
        window.enter_context(what_arrives(loaded.file))

    warnings = [warning.render(loaded.file) for warning in loaded.warnings]
    with ExitStack() as window:
        return run_daemon(loaded.config, warnings=warnings, ready=ready)


@contextmanager
def what_arrives(file: Path) -> Iterator[None]:
    """`wazuh-comms events tail --follow` on this program's output, from now on; it ends with this program, whatever
    ends that."""
    words = ["--config", str(file), "events", "tail", "--follow", "--since", to_iso(time.time(), milliseconds=False)]
    command = [sys.executable, "-m", "wazuh_comms_trio.cli.tool", *words]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent) as tail:
        try:
            yield
        finally:
            tail.terminate()


def end_with_parent() -> None:
    """Not by Ctrl-C, which the parent acts on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def read_or_make_demo(file: Path) -> Demo:
    try:
        return Demo(**json.loads(file.read_text()))
    except FileNotFoundError:
        pass
    except (TypeError, ValueError):
        raise Failure(f"{file} isn't what was written there; remove it, and another demo agent is made") from None
    demo = Demo(new_uuid(), "demo-agent", new_key(), "demo", secrets.token_urlsafe(12))
    write_private(file, json.dumps(asdict(demo), indent=2) + "\n")
    return demo


def write_private(file: Path, text: str) -> None:
    """Mode 0600 from the first byte, and never half of it."""
    beside = file.with_name(file.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
    beside.replace(file)


def write_configuration(file: Path, demo: Demo, ports: Mapping[str, int | None]) -> None:
    """Makes it where it is missing. Where it is there only its ports are set, in the lines that say so."""
    if not file.exists():
        text = CONFIGURATION.format(
            hosts=json.dumps(["0.0.0.0", "::"] if has_ipv6() else ["0.0.0.0"]),
            port=ports["--port"] or DEFAULT_PORTS["--port"],
            enrollment_port=ports["--enrollment-port"] or DEFAULT_PORTS["--enrollment-port"],
            command_socket=json.dumps(str(command_socket(file.parent))),
            user=demo.user,
            password_hash=hash_key(demo.password),
        )
        write_private(file, text)
        return
    text = file.read_text()
    for option, number in ports.items():
        pattern = rf"^(\s+port: )\d+(\s+# set by scripts/run {option})$"
        text, count = re.subn(pattern, rf"\g<1>{number or DEFAULT_PORTS[option]}\g<2>", text, flags=re.MULTILINE)
        if count != 1 and number is not None:
            raise Failure(f"{file} was changed so that {option} can't be set there; set the port in the file")
    if text != file.read_text():
        write_private(file, text)


def has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


def command_socket(folder: Path) -> Path:
    """In the folder, unless that makes a path too long for a socket."""
    path = folder / "comms-api.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    return Path(tempfile.gettempdir()) / f"wazuh-comms-{os.getuid()}-{zlib.crc32(os.fsencode(folder)):08x}.sock"


def make_groups(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir()
        (folder / "default.yml").write_text(
            "# What agents of the group `default` ask for: GET /api/v1/files?file_name=default.yml\n"
        )


def check_ports(config: Config) -> None:
    """A sentence that helps, before anything is started. The daemon has the last word."""
    api = config.communications_api
    wanted = [("--port", host, api.port) for host in api.host]
    if api.enrollment is not None:
        wanted += [("--enrollment-port", host, api.enrollment.port) for host in api.enrollment.host]
    for option, host, number in wanted:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                tried.bind((host, number))
                tried.listen(1)
            except OSError as error:
                raise Failure(
                    f"port {number} can't be used ({error.strerror}); choose another: scripts/run {option} N"
                ) from None


async def enrol(config: Config, demo: Demo) -> None:
    """The demo agent, unless it is there."""
    async with open_backends(config) as backends:
        if await backends.agents.get(demo.uuid) is None:
            await backends.agents.add(Agent(demo.uuid, demo.name, hash_key(demo.key)))


if __name__ == "__main__":
    sys.exit(main())
