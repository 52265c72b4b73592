"""Three nodes on one fake indexer, with an engine each, and every balancer in front of all of them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import trio
import yaml
from attrs import define, field

from tests.balancers.programs import (
    FORWARDING,
    PROXY,
    SCALE,
    VARIANTS,
    Balancer,
    Node,
    started,
)
from tests.conftest import Certificates
from tests.e2e.processes import PROGRAMS, Files, command_line
from tests.engine.fake import FakeEngine
from tests.indexer.cluster import free_port
from tests.indexer.daemons import wazuh_files
from tests.indexer.fake import FakeOpenSearch
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.testing import AgentClient, Connect, agent_tls, open_tls

#: An agent's address: neither a balancer's nor a node's.
AGENT_ADDRESS = "127.0.0.9"
USER, PASSWORD = "wazuh", "right"
KEY = "k" * 32
TIMEOUT = 60.0


@define
class Daemon:
    """One node's process and what belongs to it."""

    files: Files
    place: Node
    engine: FakeEngine
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.files.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command_line(self.files), stdin=subprocess.DEVNULL, stderr=log)

    def wait_until_it_serves(self) -> None:
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            if self.files.socket.exists():
                with socket.socket(socket.AF_UNIX) as sock:
                    try:
                        return sock.connect(str(self.files.socket))
                    except OSError:
                        pass
            time.sleep(0.05)
        raise AssertionError("it didn't start:\n" + (self.files.folder / "log").read_text()[-3000:])

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.send(signal.SIGCONT)
        self.send(number)
        return self.process.wait(20)

    @property
    def stateless_bodies(self) -> int:
        return len(self.engine.requests)

    def audit(self) -> list[dict[str, Any]]:
        file = self.files.state / "audit.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@define
class Site:
    """``run`` has something done in the thread of the fake indexer and the engines, soon."""

    indexer: FakeOpenSearch
    daemons: Sequence[Daemon]
    run: Callable[[Callable[[], object]], object]
    balancers: dict[str, Balancer] = field(factory=dict)

    def connect(self, name: str, *, enrolment: bool = False) -> Connect:
        """Through a balancer, from the agent's address."""
        balancer = self.balancers[name]
        return connect_from(balancer.enrolment_port if enrolment else balancer.port)

    def agent(self, name: str, uuid: str, **options: Any) -> AgentClient:
        return AgentClient(self.connect(name), uuid=uuid, key=KEY, **options)

    def set_indexer(self, *, up: bool) -> None:
        self.run(partial(setattr, self.indexer, "up", True) if up else self.indexer.go_down)

    def all_well(self) -> None:
        """Every node runs, and every balancer's checks know it."""
        for daemon in self.daemons:
            if daemon.process is None or daemon.process.poll() is not None:
                daemon.start()
        for daemon in self.daemons:
            daemon.wait_until_it_serves()


def connect_from(port: int) -> Connect:
    async def connect() -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", port, local_address=AGENT_ADDRESS)

    return connect


@contextmanager
def outside(folder: Path) -> Iterator[tuple[FakeOpenSearch, int, Sequence[FakeEngine], Callable[..., object]]]:
    """A fake indexer on a port, and three engines, in a thread of their own."""
    made: Queue[Any] = Queue()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            indexer = FakeOpenSearch(nursery)
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, indexer.serve, [listener])
            engines = [FakeEngine(folder / f"engine{number}.sock", drop_above=1000) for number in range(3)]
            for engine in engines:
                await nursery.start(engine.serve)
            token = trio.lowlevel.current_trio_token()
            made.put((indexer, listener.socket.getsockname()[1], engines, token, nursery.cancel_scope))
            await trio.sleep_forever()

    thread = Thread(target=trio.run, args=(serve,))
    thread.start()
    indexer, port, engines, token, scope = made.get(timeout=10)
    try:
        yield indexer, port, engines, token.run_sync_soon
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(10)


@contextmanager
def open_site(folder: Path, certificates: Certificates) -> Iterator[Site]:
    with outside(folder) as (indexer, port, engines, run), ExitStack() as stack:
        places = [Node(free_port(), free_port()) for _ in engines]
        daemons = [
            Daemon(node_files(folder / f"node{number}", certificates, port, place, engine.path), place, engine)
            for number, (place, engine) in enumerate(zip(places, engines, strict=True))
        ]
        init = [str(PROGRAMS / "wazuh-comms"), "--config", str(daemons[0].files.config), "indexer", "init"]
        done = subprocess.run(init, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        for daemon in daemons:
            daemon.start()
            stack.callback(kill, daemon)
        site = Site(indexer, daemons, run)
        site.all_well()  # before the balancers look for the first time
        for variant in VARIANTS:
            balancer = stack.enter_context(started(variant, places, certificates, folder / variant.name))
            site.balancers[variant.name] = balancer
        trio.run(balancers_are_well, site)
        yield site


def kill(daemon: Daemon) -> None:
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.process.kill()
        daemon.process.wait(5)


def node_files(folder: Path, certificates: Certificates, indexer_port: int, place: Node, engine: Path) -> Files:
    files = wazuh_files(
        folder,
        certificates,
        [indexer_port],
        port=place.port,
        enrollment={"host": "127.0.0.1", "port": place.enrolment_port, "users": {USER: hash_key(PASSWORD)}},
        balancers={"proxy_protocol": PROXY, "forwarded_for": FORWARDING},
        timeouts={"commands": 300 / SCALE},
        shutdown={"delay": 1},
    )
    config = yaml.safe_load(files.config.read_text())
    config["engine"]["client"]["api_socket_path"] = str(engine)
    files.config.write_text(yaml.safe_dump(config))
    (files.groups / "default.yml").write_text("agents: {}\n")
    return files


async def balancers_are_well(site: Site) -> None:
    """Returns once an agent is served through each, as often in a row as there are nodes, twice over."""

    async def wait(name: str) -> None:
        served = 0
        while served < 2 * len(site.daemons):
            try:
                reply = await site.agent(name, "").request("GET", "/api/v1/ready", authorised=False)
                joining = await open_tls(site.connect(name, enrolment=True), agent_tls(), host="localhost")
                await trio.aclose_forcefully(joining)
                served = served + 1 if reply.status == 200 else 0
            except Exception:
                served = 0
            if not served:
                await trio.sleep(0.1)

    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            for name in site.balancers:
                nursery.start_soon(wait, name)


async def at_once(*calls: Callable[[], Awaitable[object]]) -> None:
    async def one(call: Callable[[], Awaitable[object]]) -> None:
        await call()

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(one, call)
