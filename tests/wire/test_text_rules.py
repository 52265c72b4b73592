"""No text of an argument changes the form of what it is written into: a line, a word, a file of keys."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.wire import text_rules
from wazuh_comms_trio.wire.active_response import create_active_response, create_script_command
from wazuh_comms_trio.wire.agent_command import AR_TYPE, MAX_COMMAND_BYTES, encode_agent_command
from wazuh_comms_trio.wire.event import create_event_header, encode_event, unescape_location
from wazuh_comms_trio.wire.wdb_paging import first_page, next_page

HOSTILE = st.text() | st.text(" \0\n\r\t|:()[]{}\"'\\!#,;./%ax09", max_size=12)
T = TypeVar("T")


def made(make: Callable[..., T], *arguments: Any, **named: Any) -> T | None:
    """What ``make`` returns, None when it refuses: with 1012, and nothing else may be raised."""
    with suppress(MessageInvalid):
        return make(*arguments, **named)
    return None


WORDS: list[Callable[[object], str]] = [
    text_rules.check_agent_id,
    text_rules.check_agent_name,
    text_rules.check_agent_key,
    text_rules.check_agent_address,
    text_rules.check_group,
    text_rules.check_word,
    lambda value: text_rules.check_duration(value, "it"),
    text_rules.check_version,
    text_rules.check_repository,
    lambda value: text_rules.check_file_name(value, "file's name"),
]


@pytest.mark.parametrize("check", WORDS)
@given(HOSTILE)
@example("any\n")
@example("001\n")
@example("١٢٣")  # digits, but not ASCII's
def test_what_passes_is_one_word_of_ascii(check: Callable[[object], str], text: str) -> None:
    if made(check, text) is None:
        return
    assert check(text) == text
    assert re.fullmatch(r"[!-~]+", text)
    assert "," not in text


@pytest.mark.parametrize("check", WORDS)
@pytest.mark.parametrize("value", [None, 1, 1.5, b"001", ["001"], True])
def test_what_is_no_text_is_refused(check: Callable[[object], str], value: object) -> None:
    with pytest.raises(MessageInvalid, match="Error 1012"):
        check(value)


@pytest.mark.parametrize("value", [None, 5, "001", b"001", bytearray(b"001")])
def test_what_is_no_list_is_refused(value: Any) -> None:
    with pytest.raises(MessageInvalid, match=r"1012.*agents are a sequence"):
        text_rules.check_list(value, "agents")


def test_a_flag_is_true_or_false() -> None:
    assert text_rules.check_flag(False, "purge") is False
    for value in (None, 0, 1, "true", []):
        with pytest.raises(MessageInvalid, match=r"1012.*purge is true or false"):
            text_rules.check_flag(value, "purge")


def test_what_passes() -> None:
    for agent_id in ("000", "001", "999", "1000", "999999999", "2147483647"):
        assert text_rules.check_agent_id(agent_id) == agent_id
    for name in ("ab", "web-1.example_%", "x" * 128):
        assert text_rules.check_agent_name(name) == name
    for address in ("any", "10.0.0.7", "10.0.0.0/8", "10.0.0.0/255.0.0.0", "::1", "fe80::/10", "::ffff:10.0.0.7"):
        assert text_rules.check_agent_address(address) == address
    for group in ("default", "a.b-c_d", "x" * 255):
        assert text_rules.check_group(group) == group
    for version in ("v4.14.2", "5.0.0-beta3", "4.7.5", "v5.0.0", "4.9.0-rc1+2"):
        assert text_rules.check_version(version) == version
    for repository in ("packages.wazuh.com/4.x/wpk/", "https://user@mirror:8080/a%20b/~x", "http://[fe80::1]/w..k/"):
        assert text_rules.check_repository(repository) == repository
    for repository in (
        "file:///etc/",
        "ftp://h/x",
        "http://file:///x",
        "/etc",
        "h/%25252E%2e/x",
        "h/..%5cx",
        "a b",
        "",
    ):
        with pytest.raises(MessageInvalid, match="is no repository"):
            text_rules.check_repository(repository)
    for path in ("/tmp/a.wpk", "/var/upgrade files/ü..wpk"):
        assert text_rules.check_absolute_path(path) == path
    for name in ("upgrade.sh", "upgrade.bat", "_x"):
        assert text_rules.check_file_name(name, "name") == name


PATHS = st.text("./\\%2eEa\n \0v", max_size=8) | HOSTILE


@given(PATHS)
@example("../x")
@example("a/..")
@example("a/%2E%2e/b")
@example("a\\..\\b")
@example("/tmp/../etc")
def test_what_becomes_a_part_of_a_path_leads_nowhere_else(text: str) -> None:
    for check in (text_rules.check_version, lambda value: text_rules.check_file_name(value, "name")):
        if (part := made(check, text)) is not None:
            assert posixpath.normpath(f"/folder/{part}") == f"/folder/{part}"
            assert "\\" not in part
    if (repository := made(text_rules.check_repository, text)) is not None:
        parts = unquote(repository).replace("\\", "/").split("/")
        assert posixpath.normpath("/folder/" + "/".join(parts)).startswith("/folder/")
        assert ".." not in parts
    if (path := made(text_rules.check_absolute_path, text)) is not None:
        assert path.startswith("/")
        assert ".." not in path.replace("\\", "/").split("/")
        assert path.isprintable() or not re.search(r"[\x00-\x1f\x7f]", path)


@given(PATHS, st.booleans())
def test_a_command_is_looked_for_in_one_folder(name: str, as_json: bool) -> None:
    for command in (name, "!" + name):
        message = json.dumps({"version": 1, "command": command}) if as_json else f"{command} argument"
        if made(encode_agent_command, message, "001", AR_TYPE) is not None:
            assert not {"/", "\\"} & set(command.split(" ")[0])


def test_only_the_messages_own_command_is_looked_at() -> None:
    alert = {"command": "/bin/sh", "COMMAND": "../x"}
    text = create_active_response("firewall-drop", ["/bin/sh"], alert=alert)
    assert encode_agent_command(text, "001", AR_TYPE).datagram.endswith(text.encode())
    for wrong in (
        '{"Command":"!../x"}',
        '{"command":"a","command":"a/b"}',
        '{"command":"..\\\\a"}',
        "!../../bin/sh -c",
    ):
        with pytest.raises(MessageInvalid, match="is a path"):
            encode_agent_command(wrong, "001", AR_TYPE)
    for odd in ("{", '{"command":7}', '{"command":["/"]}', "{" * 3000):
        assert made(encode_agent_command, odd, "001", AR_TYPE) is not None


@pytest.mark.parametrize(
    "agent_id",
    [
        "",
        "1",
        "01",
        "0001",
        "0" * 9,
        "00a",
        "\u0660\u0660\u0661",
        "1\u06600",
        "\u00b923",
        "2147483648",
        "9" * 5000,
        "-01",
        "0x1",
        " 001",
    ],
)
def test_no_agents_id(agent_id: str) -> None:
    with pytest.raises(MessageInvalid, match="1012"):
        text_rules.check_agent_id(agent_id)


@pytest.mark.parametrize("address", ["", "Any", "10.0.0.300", "10.0.0.1/33", "fe80::1%eth0", "1.2.3", "::g", "/8"])
def test_no_address(address: str) -> None:
    with pytest.raises(MessageInvalid, match="1012"):
        text_rules.check_agent_address(address)


def test_a_wrong_key_is_not_shown() -> None:
    with pytest.raises(MessageInvalid) as caught:
        text_rules.check_agent_key("secret")
    assert "secret" not in str(caught.value)


@given(HOSTILE, HOSTILE | st.just(None), st.sampled_from(["", AR_TYPE]))
def test_a_command_is_one_datagram_of_its_form(message: str, agent_id: str | None, kind: str) -> None:
    if (command := made(encode_agent_command, message, agent_id, kind)) is None:
        return
    datagram = command.datagram
    if agent_id == "000" and kind == AR_TYPE:
        assert datagram == message.encode()
        return
    assert len(datagram) <= MAX_COMMAND_BYTES
    match = re.fullmatch(rb"\(msg_to_agent\) \[\] ([AN][!N][SN]) (\S+) (.+)", datagram)
    assert match is not None
    assert match[2].decode() == (agent_id or "(null)")
    assert match[3].decode().removesuffix(" - null (from_the_server) (no_rule_id)") == message


@given(HOSTILE, st.lists(HOSTILE, max_size=3), st.dictionaries(st.text(max_size=3), st.text(), max_size=2))
def test_an_active_response_is_one_line(command: str, arguments: list[str], alert: dict[str, str]) -> None:
    if (text := made(create_active_response, command, arguments, alert=alert)) is None:
        return
    assert text.isprintable()
    message = json.loads(text)
    assert message["command"] == command
    assert message["parameters"] == {"extra_args": arguments, "alert": alert}
    assert all(argument.isascii() or argument.encode() for argument in arguments)
    assert not any(re.search(r"[\x00-\x1f\x7f]", argument) for argument in arguments)


@given(HOSTILE, st.lists(HOSTILE, max_size=3))
def test_a_scripts_command_has_as_many_words_as_were_given(script: str, arguments: list[str]) -> None:
    if (text := made(create_script_command, script, *arguments)) is None:
        return
    assert text.split() == ["!" + script.removeprefix("!"), *arguments]
    assert "\0" not in text


@given(st.sampled_from("123d"), HOSTILE, HOSTILE)
def test_an_event_is_read_as_it_was_meant(queue: str, location: str, message: str) -> None:
    if (datagram := made(lambda: encode_event(create_event_header(queue, location), message))) is None:
        return
    match = re.fullmatch(r"(.):((?:[^|:]|\|[|:])+):(.+)", datagram.decode(), re.DOTALL)
    assert match is not None
    assert (match[1], unescape_location(match[2]), match[3]) == (queue, location, message)
    assert not re.search(r"[\0\r\n]", location)


QUERIES = [
    "global get-all-agents last_id {last_id}",
    "global get-all-agents",
    "global get-group-agents web",
    "global get-agents-by-connection-status 0 active",
    'global sync-agent-groups-get {"last_id":0}',
    "global sync-agent-groups-get",
]


@pytest.mark.parametrize("query", QUERIES)
@given(HOSTILE | st.integers())
def test_a_last_id_adds_one_word(query: str, last_id: str | int) -> None:
    if (page := made(next_page, query, last_id)) is None:
        return
    assert "\n" not in page
    if "{" in page:
        assert json.loads(page[page.index("{") :]) == {"last_id": int(last_id)}
        return
    words = first_page(query).split(" ")
    words[-1 if "last_id" in words else 2] = str(last_id)
    assert page.split(" ") == words
