"""Real OpenSearch nodes for the tests: child processes on free ports, started and stopped from synchronous code."""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from attrs import evolve, frozen

CACHES = Path(__file__).parents[2] / ".cache"
START_LIMIT = 120.0  # seconds; a loaded machine of two cores starts three nodes in about 20
_PR_SET_PDEATHSIG = 1
_PORT_LINE = re.compile(r"AbstractHttpServerTransport\] publish_address \{[^}]*:(\d+)\}")


@frozen
class Build:
    """An OpenSearch that ``setup`` fetched. ``options``: the runner's, beside those of every node."""

    folder: Path
    options: Sequence[str] = ()

    def is_there(self) -> bool:
        return (self.folder / "java").exists() or (self.folder / "lib").is_dir()

    def java(self) -> str | None:
        """The program; None: ``setup`` found none that is new enough. Raises ``RuntimeError`` before ``setup`` ran."""
        named = self.folder / "java"
        if not self.is_there():
            raise RuntimeError(f"no OpenSearch in {self.folder}: run tests/indexer/setup")
        if named.exists():
            return named.read_text().strip() or None
        return os.path.join(os.environ["JAVA_HOME"], "bin", "java") if "JAVA_HOME" in os.environ else "java"

    def archive(self) -> list[str]:
        """Java's option for the archive of classes, if there is one."""
        kinds = {"classes.aot": "-XX:AOTCache", "classes.jsa": "-XX:SharedArchiveFile"}
        return [f"{option}={self.folder / name}" for name, option in kinds.items() if (self.folder / name).exists()]


PLAIN = Build(CACHES / "opensearch")
#: A newer one, as it is without its plugin, and with it.
NEWER = Build(CACHES / "opensearch-security")
SECURED = evolve(NEWER, options=("-pluginTypes", "org.opensearch.security.OpenSearchSecurityPlugin"))


def chosen_build() -> Build:
    """For single nodes: ``TEST_OPENSEARCH=newer`` has them newer."""
    return NEWER if os.environ.get("TEST_OPENSEARCH") == "newer" else PLAIN


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def free_http_ports(count: int) -> list[int]:
    """Of the range that the runner allows."""
    found: list[int] = []
    for port in range(9201, 9300):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free port between 9201 and 9299")


@contextmanager
def start_lock() -> Iterator[None]:
    """One cluster at a time chooses its ports: two that look at once find the same ones."""
    with open(Path(tempfile.gettempdir()) / "wazuh-comms-tests-opensearch.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _end_with_parent() -> None:
    """In the child: it dies with the test run, however that ends."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Node:
    """One node, with its folders; it can be killed and started again on the same data and port."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        heap: str = "256m",
        name: str = "tests",
        build: Build = PLAIN,
    ) -> None:
        self.folder = folder
        self.build = build
        self.heap = heap
        self.name = name
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.conf = folder / "conf"
        self.conf.mkdir(parents=True)
        self.configure(settings)

    def configure(self, settings: Mapping[str, str]) -> None:
        """For its next start."""
        lines = [f"{key}: {value}\n" for key, value in settings.items()]
        (self.conf / "opensearch.yml").write_text("".join(lines))

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def begin(self, port: int) -> None:
        """Starts the process, to listen on ``port``."""
        self.port = port
        java = self.build.java()
        if java is None:
            raise RuntimeError("no Java is new enough for this OpenSearch")
        command = [java, f"-Xms{self.heap}", f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += ["-XX:-UsePerfData", "-Xlog:disable", "-Xlog:all=error:stderr"]
        command += [f"-Djava.io.tmpdir={self.folder}", *self.build.archive()]
        command += ["-cp", f"{self.build.folder}/lib/*", "org.codelibs.opensearch.runner.OpenSearchRunner"]
        command += ["-basePath", str(self.folder / "base"), "-confPath", str(self.conf), "-numOfNode", "1"]
        command += ["-baseHttpPort", str(port - 1), "-clusterName", self.name, *self.build.options]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_end_with_parent
            )

    def restart(self) -> None:
        """After ``kill`` or ``stop``: on the same port, with the same data."""
        self.begin(self.port)
        self.wait_listening()

    def wait_listening(self) -> None:
        port = self._wait_port()
        if port != self.port:
            raise RuntimeError(f"OpenSearch listens on {port}, not on {self.port}")

    def _wait_port(self) -> int:
        assert self.process is not None
        limit = time.monotonic() + START_LIMIT
        while time.monotonic() < limit:
            if match := _PORT_LINE.search(self.log.read_text(errors="replace")):
                return int(match[1])
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"OpenSearch did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def kill(self) -> None:
        """As ``kill -9``."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


@contextmanager
def nodes(
    count: int,
    settings: Mapping[str, str] | None = None,
    *,
    heap: str = "256m",
    build: Build = PLAIN,
    prepare: Callable[[Node], None] = lambda node: None,
) -> Iterator[Sequence[Node]]:
    """A cluster of ``count`` nodes (one: no discovery), one JVM each, gone with its data at the end. ``prepare``: puts
    more into a node's ``conf`` before its first start."""
    folder = Path(tempfile.mkdtemp(prefix="wazuh-comms-opensearch-"))
    common = {"network.host": "127.0.0.1", "action.destructive_requires_name": "false"} | dict(settings or {})
    ports = [free_port() for _ in range(count)]
    members: list[Node] = []
    for number, port in enumerate(ports):
        own = {"discovery.type": "single-node"}
        if count > 1:
            peers = ", ".join(f'"127.0.0.1:{peer}"' for peer in ports)
            own = {"discovery.seed_hosts": f"[{peers}]", "cluster.initial_cluster_manager_nodes": f"[{peers}]"}
        own["transport.port"] = str(port)
        member = Node(folder / f"node-{number}", common | own, heap=heap, name=folder.name, build=build)
        prepare(member)
        members.append(member)
    try:
        with start_lock():
            for node, port in zip(members, free_http_ports(count), strict=True):
                node.begin(port)
            for node in members:
                node.wait_listening()
        yield members
    finally:
        for node in members:
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)


@cache
def shared_node() -> Node:
    """The one node of this test run for all tests that don't break it. Gone at exit."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(nodes(1, build=chosen_build()))[0]
