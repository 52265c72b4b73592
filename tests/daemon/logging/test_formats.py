"""Logs: formats, context, one line a record, and no secret in any."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from wazuh_comms_trio.config.models import Logging
from wazuh_comms_trio.daemon.logging.formats import (
    LogFileUnusable,
    is_journal,
    make_formatter,
    mask,
    set_up_logs,
)
from wazuh_comms_trio.daemon.process import run_daemon
from wazuh_comms_trio.foundation.log_context import AGENT, REQUEST, log_context
from wazuh_comms_trio.testing import daemon_config, open_daemon, stateful_event, stateless_event

SECRETS = ("hunter2hunter2", "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ3YXp1aCJ9.c2lnbmF0dXJl")


def record(message: str, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("wazuh", level, "file.py", 1, message, args, None)
    made.created = 1_741_720_356.629
    return made


def test_plain() -> None:
    line = make_formatter("plain").format(record("hello %s", "world"))
    assert line == "2025-03-11T19:12:36.629Z INFO wazuh: hello world"
    with log_context(request="7f", agent="a-1"):
        line = make_formatter("plain").format(record("hello"))
    assert line == "2025-03-11T19:12:36.629Z INFO wazuh: hello [request=7f agent=a-1]"
    assert (REQUEST.get(), AGENT.get()) == (None, None)


def test_json() -> None:
    with log_context(request="7f"), log_context(agent="a-1"):
        line = make_formatter("json").format(record('say "%s"\n', "hi"))
    assert json.loads(line) == {
        "time": "2025-03-11T19:12:36.629Z",
        "level": "info",
        "logger": "wazuh",
        "message": 'say "hi"\\n',
        "request": "7f",
        "agent": "a-1",
    }


FORGED = "2026-01-01T00:00:00.000Z INFO root: all is well"


def failing(text: str, between: str = "\n") -> None:
    """Says it wherever a traceback has a place for it."""
    try:
        try:
            raise KeyError(text)
        except KeyError as error:
            noted = ValueError(text)
            noted.add_note(f"a note{between}{text}")
            raise noted from error
    except ValueError as error:
        raise ExceptionGroup(f"several{between}{text}", [error, RuntimeError(text)]) from OSError(text)


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\v", "\x85", "\u2028", '\n\n  File "x"\n', "\n  | \n"])
def test_what_an_error_says_begins_no_line(line_break: str) -> None:
    made = record("failed")
    try:
        failing(f"bad{line_break}{FORGED}")
    except ExceptionGroup:
        made.exc_info = sys.exc_info()
    lines = make_formatter("plain").format(made).splitlines()
    assert sum(FORGED in line for line in lines) >= 5
    assert not [line for line in lines if line.lstrip(" |").startswith(FORGED)]
    assert sum("direct cause" in line for line in lines) == 2
    assert {"", "ExceptionGroup"} <= {line.split(":")[0].strip(" |+") for line in lines}


def test_without_breaks_a_traceback_is_pythons_own() -> None:
    made = record("failed")
    try:
        failing("plain", " ")
    except ExceptionGroup as error:
        made.exc_info = sys.exc_info()
        expected = "".join(traceback.format_exception(error))
    assert make_formatter("plain").format(made).split("\n", 1)[1] == expected.removesuffix("\n")


def test_a_traceback_is_kept() -> None:
    try:
        raise ValueError("password=hunter2hunter2")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    plain = make_formatter("plain").format(made)
    assert plain.splitlines()[0].endswith("wazuh: failed")
    assert "Traceback" in plain
    assert "hunter2" not in plain
    parsed = json.loads(make_formatter("json").format(made))
    assert "ValueError" in parsed["traceback"]


@pytest.mark.parametrize("format", ["plain", "json"])
def test_what_an_error_says_does_nothing_to_a_terminal(format: Literal["plain", "json"]) -> None:
    """It may be a text of a peer's."""
    try:
        raise ValueError("\x1b[2K\x9b2K\u202e \r")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    text = make_formatter(format).format(made)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "ValueError: " in text


def test_the_journal_gets_priorities() -> None:
    formatter = make_formatter("plain", journal=True)
    levels = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>", logging.ERROR: "<3>"}
    for level, prefix in levels.items():
        assert formatter.format(record("x", level=level)).startswith(prefix + "2025-")


def test_is_it_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "stream").open("w") as stream:
        assert not is_journal(stream)
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert is_journal(stream)
    assert not is_journal(io.StringIO())


@given(st.text())
@example(
    "moves \x1b[2K\x9b2K, ends \n\r\x85\u2028, is read backwards \u202e\u2066, has no width \u200b\U000e0041\ufeff"
)
def test_whatever_a_peer_sends_is_one_line(text: str) -> None:
    assert make_formatter("plain").format(record("%s", text)).isprintable()
    assert json.loads(make_formatter("json").format(record("%s", text)))["logger"] == "wazuh"


@pytest.mark.parametrize(
    "text",
    [
        '{"uuid":"u","key":"%s"}',
        "Authorization: Bearer %s",
        "authorization: Basic %s",
        "password=%s and more",
        "Ssl(keyfile_password='%s')",
        "{'password': '%s'}",
        r"body \"key\":\"%s\"",
        '"token": "%s',
    ],
)
@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_masked(text: str, secret: str) -> None:
    masked = mask(text % secret)
    assert secret not in masked
    assert secret[-6:] not in masked


def test_what_is_no_secret_stays() -> None:
    for text in ("ssl.key: the key file can be read by others", "basic authentication", "the token has expired"):
        assert mask(text) == text


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising
    logging.captureWarnings(False)


class Closed(io.StringIO):
    """A stderr whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_setting_up_again_replaces(root_logger: logging.Logger) -> None:
    first, second = io.StringIO(), io.StringIO()
    set_up_logs(Logging(level="info"), stream=first)
    set_up_logs(Logging(level="warning", format="json"), stream=second)
    logging.getLogger("wazuh").info("not shown")
    logging.getLogger("wazuh").warning("shown")
    assert first.getvalue() == ""
    assert [json.loads(line)["message"] for line in second.getvalue().splitlines()] == ["shown"]


def test_a_closed_stderr_is_no_trouble(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    stream: TextIO = Closed()
    set_up_logs(Logging(), stream=stream)
    logging.getLogger("wazuh").warning("to nobody")
    assert capsys.readouterr().err == ""


async def test_nothing_secret_is_logged_at_any_level(
    root_logger: logging.Logger, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the daemon's own lines say, before anything masks them."""
    stream = io.StringIO()
    set_up_logs(Logging(level="debug"), stream=stream)
    monkeypatch.setattr("wazuh_comms_trio.daemon.logging.formats.mask", lambda text: text)
    async with open_daemon() as daemon:
        agent = await daemon.enrol_agent(key="SECRETKEYSECRETKEYSECRETKEYSECRE")
        await agent.authenticate()
        token = agent.token or ""
        await agent.post_stateless([stateless_event("m", "c", {"text": "EVENTBODY"})])
        await agent.post_stateful([stateful_event("i", "fim", "create", {"text": "EVENTBODY"}), b'{"id":1}\n{}\n'])
        await agent.request("POST", "/api/v1/events/stateful", b"EVENTBODY")
        await agent.request("GET", "/api/v1/files?file_name=default.conf")
        agent.token = token[:-5] + "AAAAA"
        await agent.post_stateless([])
        agent.key = "ANOTHERSECRETKEY"
        await agent.authenticate()
    logged = stream.getvalue()
    for secret in ("SECRETKEY", token[-20:], "EVENTBODY", token.split(".")[1]):
        assert secret not in logged


def test_to_a_file_that_may_be_moved_away(root_logger: logging.Logger, tmp_path: Path) -> None:
    file, moved = tmp_path / "comms.log", tmp_path / "comms.log.1"
    set_up_logs(Logging(level="info", file=file))
    logging.getLogger("wazuh").info("first")
    file.rename(moved)
    logging.getLogger("wazuh").info("second")
    set_up_logs(Logging(level="info", format="json", file=file))
    logging.getLogger("wazuh").info("third")
    set_up_logs(Logging(level="info"), stream=io.StringIO())
    assert moved.read_text().endswith("INFO wazuh: first\n")
    second, third = file.read_text().splitlines()
    assert second.endswith("INFO wazuh: second")
    assert json.loads(third)["message"] == "third"
    assert moved.stat().st_mode & 0o777 == 0o640


def test_a_file_that_cannot_be_written_replaces_nothing(root_logger: logging.Logger, tmp_path: Path) -> None:
    stream = io.StringIO()
    set_up_logs(Logging(level="info"), stream=stream)
    with pytest.raises(LogFileUnusable, match=r"logging\.file can't be written: .*nowhere.*: No such file"):
        set_up_logs(Logging(level="info", file=tmp_path / "nowhere" / "comms.log"))
    logging.getLogger("wazuh").info("still here")
    assert stream.getvalue().endswith("INFO wazuh: still here\n")


@pytest.fixture
def signals() -> Iterator[None]:
    """A daemon leaves them as a process needs them that ends."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.expects_errors
@pytest.mark.usefixtures("signals")
def test_a_daemon_whose_log_cannot_be_written_says_so(
    root_logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = daemon_config(logging=Logging(file=tmp_path / "nowhere" / "comms.log"))
    assert run_daemon(config) == 78
    assert capsys.readouterr().err.count("logging.file can't be written") == 1
