"""Fixtures for every test: no unexpected ERROR in the log, certificates, a configuration, and the same examples every
time."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme
from hypothesis import HealthCheck, settings

from tests.indexer.cluster import chosen_build
from wazuh_comms_trio.config.models import CommunicationsApi, Config, Embedded, Files, Logging, Ssl

# The same examples in every run: a failure is the change's, not the day's. `--hypothesis-profile=explore` looks
# further.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


class _ErrorCollector(logging.Handler):
    """Keeps what is logged at ERROR and above."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture(autouse=True)
def unexpected_errors(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """An ERROR in the log fails the test, unless it is marked ``expects_errors``. The lines so far are the fixture's
    value."""
    collector = _ErrorCollector()
    logging.getLogger().addHandler(collector)
    try:
        yield collector.lines
    finally:
        logging.getLogger().removeHandler(collector)
    if collector.lines and request.node.get_closest_marker("expects_errors") is None:
        pytest.fail("unexpected errors in the log:\n" + "\n".join(collector.lines), pytrace=False)


#: Seconds after which a test hangs, and nothing else: the slowest, on a busy machine, take a tenth of it.
TEST_TIMEOUT = 300
#: As many times that for those that are marked ``long``.
LONG = 20
#: Seconds for a thread that has nothing left to do.
LAST_STEPS = 10


@pytest.fixture(autouse=True)
def hanging_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Is interrupted as by Ctrl-C, so that what it started is cleaned up, and the run ends."""

    def interrupt(*_: object) -> None:
        os.write(2, f"\n{request.node.nodeid}: hangs\n".encode())
        faulthandler.dump_traceback(all_threads=True)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(TEST_TIMEOUT if request.node.get_closest_marker("long") is None else TEST_TIMEOUT * LONG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def left_threads(hanging_test: None) -> Iterator[None]:
    """A thread that outlives its test fails it: Python waits for it at the end of the run, for ever. (Daemon threads,
    as trio's that wait for work, are left alone.)"""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(LAST_STEPS)
    assert not [thread for thread in left if thread.is_alive()], "threads that don't end"


@attrs.frozen
class Certificates:
    """PEM files. The server's has SANs localhost, 127.0.0.1 and ::1, and an EC P-256 key; ``other_ca`` signed none of
    these."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path
    other_ca: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made once a run."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = trustme.CA(), trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1", "::1")
    client = authority.issue_cert("agent.example")
    made = Certificates(
        *(folder / f"{name}.pem" for name in ("ca", "cert", "key", "client_cert", "client_key", "other_ca"))
    )
    authority.cert_pem.write_to_path(made.ca)
    other.cert_pem.write_to_path(made.other_ca)
    for leaf, cert, key in ((server, made.cert, made.key), (client, made.client_cert, made.client_key)):
        key.touch(mode=0o600)
        leaf.private_key_pem.write_to_path(key)
        for position, pem in enumerate(leaf.cert_chain_pems):
            pem.write_to_path(cert, append=position > 0)
    return made


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter. ``tmp_path`` isn't one: each run of pytest that starts, also beside this one,
    takes all others' rights from the folder above it."""
    with tempfile.TemporaryDirectory(prefix="wazuh-comms-public-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def make_config(certificates: Certificates, tmp_path: Path) -> Callable[..., Config]:
    """``make_config(timeouts=Timeouts(commands=1))``: embedded, on a free port, with all state in the test's own
    folder."""

    def make(**changes: Any) -> Config:
        groups = tmp_path / "groups"
        groups.mkdir(exist_ok=True)
        api = CommunicationsApi(
            Ssl(certificates.key, certificates.cert),
            host=("127.0.0.1",),
            port=0,
            workers=1,
            logging=Logging("debug"),
            backend="embedded",
            embedded=Embedded(tmp_path / "state"),
            files=Files(groups),
            command_socket=tmp_path / "comms.sock",
        )
        return Config(attrs.evolve(api, **changes))

    return make


#: Markers of tests that need a real component.
COMPONENTS = ("indexer", "balancers", "prometheus")
#: Is there where no setup could make one more: a systemd that is booted (the marker ``machine``).
IMPOSSIBLE = Path(__file__).parents[1] / ".cache/machine/impossible"


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "a test that needs a real component (a marker of `COMPONENTS`) fails where it would be skipped"
    parser.addoption("--require-components", action="store_true", help=text)


def pytest_configure() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that tests start and interrupt. SIGTERM,
    as from a limit of time, ends a run as Ctrl-C does: with all that tests started."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test with a real indexer is skipped where none was set up, before its fixtures look for one."""
    if item.get_closest_marker("indexer") is not None and "CI" not in os.environ and not chosen_build().is_there():
        pytest.skip("no OpenSearch is there: run tests/indexer/setup")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    needs = any(item.get_closest_marker(name) is not None for name in COMPONENTS) or (
        item.get_closest_marker("machine") is not None and not IMPOSSIBLE.exists()
    )
    if report.skipped and needs and item.config.getoption("--require-components"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and every component must be there: {report.longrepr}"
    return report
