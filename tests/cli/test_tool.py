"""The tool as a whole: options, exit statuses, errors; and its smaller commands."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import LEAST, Tool
from tests.cli.test_events import fill
from wazuh_comms_trio.audit.log import AuditLog, User
from wazuh_comms_trio.cli import apid
from wazuh_comms_trio.cli.arguments import json_or_text, named_value, seconds
from wazuh_comms_trio.cli.owner import acting_as_owner
from wazuh_comms_trio.cli.program import Failure, run_program
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.services.authentication.secret_hashes import key_matches


def test_config_and_json_before_and_after_the_command(
    tool: Tool, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WAZUH_COMMS_CONFIG")
    file = str(config_file)
    for words in (
        ("--config", file, "--json", "agents", "list"),
        ("agents", "--config", file, "--json", "list"),
        ("agents", "list", f"--config={file}", "--json"),
        ("--json", "agents", "--config", file, "list"),
    ):
        assert tool(*words).document == []
    assert tool("--config", "/nonexistent", "agents", "list", "--config", file, "--json").document == []


def test_configuration_by_default(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAZUH_COMMS_CONFIG")
    monkeypatch.setattr("wazuh_comms_trio.cli.program.DEFAULT_CONFIG", "/nonexistent/wazuh-server.yml")
    missing = "/nonexistent/wazuh-server.yml: can't be read: No such file or directory"
    for words in (("agents", "list"), ("config", "check")):
        refused = tool(*words)
        assert refused.status == 78
        assert refused.err == f"wazuh-comms: {missing}; name another one by --config FILE or $WAZUH_COMMS_CONFIG\n"
    assert tool("--config", "/nonexistent/own.yml", "agents", "list").err.endswith("such file or directory\n")


def test_a_configuration_that_is_not_ones_own(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "stat", refuse)
    for words in (("agents", "list"), ("config", "check")):
        refused = tool(*words)
        assert refused.status == 78
        assert refused.err.endswith(": Permission denied; run this as root, or as the user whose it is\n")


@pytest.mark.parametrize(
    "words", [(), ("agents",), ("nonsense",), ("agents", "nonsense"), ("--nonsense",), ("config", "check", "x")]
)
def test_misuse(tool: Tool, words: tuple[str, ...]) -> None:
    refused = tool(*words)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("usage: ")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "wazuh-comms: name a command: agents, commands, events, "),
        (("agents", "--json"), "wazuh-comms agents: name a command: add, list, show, why, remove, rekey\n"),
        (("keys", "rotate"), "wazuh-comms keys rotate: name a command: publish, sign\n"),
    ],
)
def test_a_group_alone_names_its_commands(tool: Tool, words: tuple[str, ...], named: str) -> None:
    refused = tool(*words)
    assert (refused.status, refused.out) == (2, "")
    assert f"\n{named}" in refused.err


def test_help_names_every_command(tool: Tool) -> None:
    shown = tool("--help")
    assert shown.status == 0
    for name in (
        "agents",
        "commands",
        "events",
        "quarantine",
        "backup",
        "restore",
        "enrollment",
        "config",
        "indexer",
        "daemon",
    ):
        assert f"\n    {name} " in shown.out
    assert tool("--version").out.startswith("wazuh-comms 0.")


def test_bad_configuration_is_78_with_every_problem(tool: Tool, config_file: Path) -> None:
    config_file.write_text(LEAST + "  workers: x\n  hots: 1\n")
    refused = tool("agents", "list")
    assert (refused.status, refused.out) == (78, "")
    first, second = refused.err.splitlines()
    assert first.startswith(f'wazuh-comms: {config_file}:9: communications_api.workers: "x" is not accepted')
    assert second == f'wazuh-comms: {config_file}:10: communications_api.hots: unknown key; did you mean "host"?'


def test_state_that_cannot_be_opened(tool: Tool, state: Path) -> None:
    state.write_text("not a folder")
    refused = tool("agents", "list")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("wazuh-comms: ")
    assert str(state) in refused.err
    assert "Traceback" not in refused.err


def test_damaged_state(tool: Tool, state: Path) -> None:
    state.mkdir()
    (state / "state.db").write_bytes(b"nonsense" * 1000)
    for words in (("agents", "list"), ("events", "tail")):
        refused = tool(*words)
        assert (refused.status, refused.out) == (1, "")
        assert f"{state / 'state.db'}: the database is damaged" in refused.err
        assert len(refused.err.splitlines()) == 1


# --- config ----------------------------------------------------------------------------------------------------------


def test_config_check(tool: Tool, config_file: Path, certificates: Any) -> None:
    refused = tool("config", "check")
    assert (refused.status, refused.out) == (78, "")
    assert len(refused.err.splitlines()) == 2  # key and certificate
    document = tool("config", "check", "--json")
    assert document.status == 78
    assert [problem["path"] for problem in document.document["problems"]] == [
        "communications_api.ssl.cert",
        "communications_api.ssl.key",
    ]
    config_file.write_text(
        LEAST.replace("key.pem", str(certificates.key)).replace("cert.pem", str(certificates.cert)) + "  post: 1\n"
    )
    assert tool("config", "check").status == 78  # both port and post
    text = config_file.read_text().replace("  port: 0\n", "")
    config_file.write_text(text)
    good = tool("config", "check")
    assert (good.status, good.out) == (0, f"{config_file} can be used\n")
    assert good.err.startswith("wazuh-comms: warning: ")
    assert tool("config", "check", "--json").document["ok"] is True


def test_config_show_masks_secrets(tool: Tool, config_file: Path) -> None:
    config_file.write_text(LEAST + "indexer: {username: admin, password: hunter2}\n")
    shown = tool("config", "show")
    assert shown.status == 0
    assert "hunter2" not in shown.out
    assert yaml.safe_load(shown.out) == tool("config", "show", "--json").document
    assert yaml.safe_load(shown.out)["indexer"]["password"] == "***"  # noqa: S105


# --- enrollment ------------------------------------------------------------------------------------------------------


def test_passwd_prints_the_entry(tool: Tool, config_file: Path) -> None:
    for password in ("hunter2", "hunter2\n", "hunter2\r\n", "hunter2\nmore\n"):
        printed = tool("enrollment", "passwd", "bob", stdin=password)
        assert printed.status == 0
        ((user, password_hash),) = yaml.safe_load(printed.out).items()
        assert user == "bob"
        assert key_matches("hunter2", password_hash)
    config_file.write_text(LEAST + f"  enrollment: {{users: {{{printed.out.strip()}}}}}\n")
    assert tool("config", "show").status == 0
    document = tool("enrollment", "passwd", "bob", "--json", stdin="hunter2").document
    assert key_matches("hunter2", document["hash"])


def test_passwd_of_names_that_yaml_would_take_for_something_else(tool: Tool) -> None:
    for name in ("yes", "5", "a: b".replace(":", ""), "#x", "ö"):
        printed = tool("enrollment", "passwd", name, stdin="x")
        assert list(yaml.safe_load(printed.out)) == [name]


def test_passwd_without_a_password(tool: Tool) -> None:
    for typed in ("", "\n"):
        refused = tool("enrollment", "passwd", "bob", stdin=typed)
        assert (refused.status, refused.out) == (1, "")
        assert refused.err == "wazuh-comms: no password was given\n"
    assert tool("enrollment", "passwd", "a:b", stdin="x").status == 2


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("5", 5),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('["a"]', ["a"]),
        ('{"a": 1}', {"a": 1}),
        ('"quoted"', "quoted"),
        ("", ""),
        ("plain text", "plain text"),
        ("{not json", "{not json"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "1e999"),
        ('"\\ud800"', '"\\ud800"'),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_json_or_text(word: str, value: Any) -> None:
    assert json_or_text(word) == value
    assert type(json_or_text(word)) is type(value)


@given(st.text())
def test_any_text_is_an_argument(word: str) -> None:
    try:
        name, _ = named_value(f"a={word}")
    except ArgumentTypeError:
        assert any(0xD800 <= ord(char) < 0xE000 for char in word)
    else:
        assert name == "a"


@pytest.mark.parametrize("word", ["", "a", "=b", "a\nb=c"])
def test_what_is_no_named_value(word: str) -> None:
    with pytest.raises(ArgumentTypeError):
        named_value(word)


@pytest.mark.parametrize("word", ["", "0", "-1", "1.5", "x", "\u0665", "99999999999", "1e3", "31536001"])
def test_what_is_no_number_of_seconds(word: str) -> None:
    with pytest.raises(ArgumentTypeError):
        seconds(word)
    assert seconds("31536000") == 31536000


# --- the frame of both programs --------------------------------------------------------------------------------------


def test_errors_are_sentences(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_with(error: BaseException) -> tuple[int, str]:
        def main() -> int:
            raise error

        status = run_program("p", main)
        return status, capsys.readouterr().err

    assert fail_with(Failure("no\x1b[31m", 7)) == (7, "p: no\\x1b[31m\n")
    assert fail_with(KeyboardInterrupt()) == (130, "")
    assert fail_with(FileNotFoundError(2, "No such file", "/x")) == (1, "p: /x: No such file\n")
    assert fail_with(ExceptionGroup("", [Failure("one"), ExceptionGroup("", [Failure("two")])])) == (
        1,
        "p: one\np: two\n",
    )
    status, text = fail_with(ZeroDivisionError("oops"))
    assert status == 1
    assert text.startswith("p: unexpected error: ZeroDivisionError('oops')")
    assert "Traceback" not in text
    monkeypatch.setenv("WAZUH_COMMS_TRACEBACK", "1")
    assert "Traceback" in fail_with(ZeroDivisionError("oops"))[1]


def run_tool(*words: str, program: str = "tool", **options: Any) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        f"import sys; from wazuh_comms_trio.cli.{program} import main; sys.exit(main())",
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.mark.processes
def test_reader_that_leaves_early(config_file: Path, tool: Tool) -> None:
    tool("agents", "add", "a")
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "wazuh_comms_trio.cli.tool", "agents", "list"]
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.processes
def test_output_that_cannot_be_written(config_file: Path, tool: Tool) -> None:
    for number in range(3):
        tool("agents", "add", f"agent {number}")
    command = [sys.executable, "-m", "wazuh_comms_trio.cli.tool", "agents", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "wazuh-comms: No space left on device\n")
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.processes
@pytest.mark.parametrize("words", [("events", "tail", "--follow"), ("commands", "send", "--all", "restart", "--wait")])
def test_ctrl_c(config: Config, tool: Tool, words: tuple[str, ...]) -> None:
    tool("agents", "add", "one")
    fill(config)
    command = [sys.executable, "-u", "-m", "wazuh_comms_trio.cli.tool", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            first = process.stderr if words[0] == "commands" else process.stdout
            assert first is not None
            assert first.readline() != ""  # it is at work
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    if words[0] == "commands":  # the one thing to know: it isn't over
        assert re.fullmatch(r"the command [0-9a-f]{32} goes on\n", err)
    else:
        assert err == ""


@pytest.mark.processes
def test_help_is_quick_and_light() -> None:
    """No store, no event loop: what a command needs is imported when it runs."""
    code = "import sys; from wazuh_comms_trio.cli.tool import make_parser; make_parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    modules = set(done.stdout.split())
    assert modules.isdisjoint({"trio", "attr", "yaml", "apsw", "cryptography", "quart", "hypercorn", "msgspec"})


@pytest.mark.processes
def test_output_under_an_ascii_locale(config_file: Path, tool: Tool) -> None:
    tool("agents", "add", "Größe")
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = run_tool("agents", "list", env=env)
    assert done.returncode == 0
    assert "Gr\\xf6\\xdfe" in done.stdout


def test_daemons_program(
    config_file: Path, certificates: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert apid.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("wazuh-comms-apid 0.")
    assert apid.main(["--check"]) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(line.startswith(f"wazuh-comms-apid: {config_file}:5: ") for line in captured.err.splitlines())
    assert apid.main([]) == 78
    assert apid.main(["--config", "/nonexistent"]) == 78
    capsys.readouterr()
    config_file.write_text(LEAST.replace("key.pem", str(certificates.key)).replace("cert.pem", str(certificates.cert)))
    assert apid.main(["--check"]) == 0
    assert capsys.readouterr().out == f"{config_file} can be used\n"
    with pytest.raises(SystemExit) as end:
        apid.main(["nonsense"])
    assert end.value.code == 2


# --- acting as the owner ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_root_acts_as_the_owner_of_the_state(tool: Tool, config_file: Path, public_folder: Path) -> None:
    state = public_folder / "state"
    config_file.write_text(LEAST.replace("path: state", f"path: {state}"))
    state.mkdir()
    os.chown(state, 4242, 4343)
    assert tool("agents", "add", "a").status == 0
    owners = {(file.stat().st_uid, file.stat().st_gid) for file in (state, *state.rglob("*"))}
    assert owners == {(4242, 4343)}
    assert (os.geteuid(), os.getegid()) == (0, os.getgid())
    with acting_as_owner(state / "not" / "yet", config_file):
        assert os.geteuid() == 4242


def test_audit_log_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "audit.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        AuditLog(tmp_path / "audit.log").append(User(0), "a", "b")


@pytest.mark.parametrize("words", [("check",), ("init",), ("show", "i/1"), ("remove", "i/1")])
def test_an_indexer_that_the_configuration_doesnt_have(tool: Tool, words: tuple[str, ...]) -> None:
    refused = tool("indexer", *words)
    assert (refused.status, refused.out) == (78, "")
    assert refused.err == "wazuh-comms: there is no indexer: the configuration says `backend: embedded`\n"
