"""The real balancers with the configurations of conf/balancers: their addresses, ports and times replaced, and nothing
else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from tests.conftest import Certificates
from tests.indexer.cluster import free_port

CONFIGURATIONS = Path(__file__).parents[2] / "conf" / "balancers"
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

#: A second of the tests is this many of the shipped configurations: polls of 300 s are polls of 4 s.
SCALE = 75
AGENTS_PORT = 27000
#: From where each kind connects to the nodes, which trust the last two.
SILENT, PROXY, FORWARDING = "127.0.0.4", "127.0.0.2", "127.0.0.3"

_NODE = re.compile(r"10\.0\.0\.1(\d):(\d+)")


@frozen
class Node:
    """Where a node listens on the loopback interface."""

    port: int
    enrolment_port: int


@frozen
class Variant:
    """A file of conf/balancers, as it is or with what it has for the PROXY protocol."""

    file: str
    proxy: bool = False

    @property
    def name(self) -> str:
        return self.file.partition(".")[0] + ("-proxy" if self.proxy else "")

    @property
    def program(self) -> str:
        return self.file.partition("-")[0]

    @property
    def ends_tls(self) -> bool:
        return "-http" in self.file

    @property
    def source(self) -> str:
        """The address from which the nodes are connected to."""
        return PROXY if self.proxy else FORWARDING if self.ends_tls else SILENT

    @property
    def checks(self) -> bool:
        """Does it ask whether a node is ready?"""
        return self.program == "haproxy"


VARIANTS = [
    Variant("haproxy-tcp.cfg"),
    Variant("haproxy-tcp.cfg", proxy=True),
    Variant("haproxy-http.cfg"),
    Variant("haproxy-http.cfg", proxy=True),
    Variant("nginx-stream.conf"),
    Variant("nginx-stream.conf", proxy=True),
    Variant("nginx-http.conf"),
]


def missing() -> str | None:
    """What isn't here of the programs."""
    for program, package in (("haproxy", "haproxy"), ("nginx", "nginx")):
        if shutil.which(program) is None:
            return f"no {program}: apt-get install {package}"
    return None if STREAM_MODULE.exists() else "nginx has no stream module: apt-get install libnginx-mod-stream"


@frozen
class Balancer:
    variant: Variant
    port: int
    enrolment_port: int
    process: subprocess.Popen[bytes]
    configuration: Path

    def leave_out(self, node: Node) -> None:
        """nginx: a node is marked as down, and the configuration read again."""
        text = self.configuration.read_text()
        marked = re.sub(rf"(server 127\.0\.0\.1:({node.port}|{node.enrolment_port})\b[^;]*);", r"\1 down;", text)
        assert marked != text
        self.configuration.write_text(marked)
        self.process.send_signal(signal.SIGHUP)

    def take_back(self) -> None:
        """Undoes ``leave_out``."""
        text = self.configuration.read_text()
        if " down;" in text:
            self.configuration.write_text(text.replace(" down;", ";"))
            self.process.send_signal(signal.SIGHUP)


def configured(variant: Variant, nodes: Sequence[Node], port: int, enrolment_port: int, folder: Path) -> str:
    """The file's text for these nodes and ports."""

    def node(match: re.Match[str]) -> str:
        one = nodes[int(match[1]) - 1]
        return f"127.0.0.1:{one.port if int(match[2]) == AGENTS_PORT else one.enrolment_port}"

    text = (CONFIGURATIONS / variant.file).read_text()
    assert text.count("360s") >= 1
    replaced = [
        ("0.0.0.0:27000", f"127.0.0.1:{port}"),
        ("0.0.0.0:55000", f"127.0.0.1:{enrolment_port}"),
        ("360s", f"{360_000 // SCALE}ms"),
    ]
    if variant.program == "haproxy":
        replaced += [
            ("inter 2s", "inter 1s"),
            ("timeout check 5s", "timeout check 3s"),
            ("maxconn 50000", "maxconn 500"),
        ]
        replaced += [("    balance ", f"    source {variant.source}\n    balance ")]
        if variant.ends_tls:
            replaced += [("/etc/haproxy/", f"{folder}/")]
        if variant.proxy:
            replaced += [("#default-server", "default-server")]
    else:
        block = "http {" if variant.ends_tls else "stream {"
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi") if variant.ends_tls else ()
        paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in temporary)
        replaced += [
            ("worker_processes auto", "worker_processes 1"),
            ("worker_connections 50000", "worker_connections 500"),
            ("worker_rlimit_nofile 100000;", ""),
            (block, f"{block}\nproxy_bind {variant.source};\n{paths}"),
        ]
        if variant.ends_tls:
            replaced += [
                ("/etc/nginx/agents", f"{folder}/agents"),
                ("/etc/nginx/nodes-ca.pem", f"{folder}/nodes-ca.pem"),
            ]
        if variant.proxy:
            replaced += [("#proxy_protocol on", "proxy_protocol on")]
    for before, after in replaced:
        assert before in text, before
        text = text.replace(before, after)
    text, count = _NODE.subn(node, text)
    assert count >= 6
    return text


@contextmanager
def started(variant: Variant, nodes: Sequence[Node], certificates: Certificates, folder: Path) -> Iterator[Balancer]:
    folder.mkdir()
    (folder / "agents.pem").write_text(certificates.cert.read_text() + certificates.key.read_text())
    (folder / "agents.key").write_text(certificates.key.read_text())
    (folder / "nodes-ca.pem").write_text(certificates.ca.read_text())
    port, enrolment_port = free_port(), free_port()
    file = folder / variant.file
    file.write_text(configured(variant, nodes, port, enrolment_port, folder))
    if variant.program == "haproxy":
        command = ["haproxy", "-db", "-f", str(file)]
    else:
        options = f"daemon off; error_log {folder}/error.log; pid {folder}/pid;"
        command = ["nginx", "-c", str(file), "-g", options + (" user root;" if os.getuid() == 0 else "")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield Balancer(variant, port, enrolment_port, process, file)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
