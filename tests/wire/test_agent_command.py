"""Commands to agents: the datagram as remoted reads it, and the refusal of everything that it would misread."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.errors import WazuhInternalError
from wazuh_comms_trio.wire.agent_command import (
    AR_TYPE,
    HC_FORCE_RECONNECT,
    HC_SK_RESTART,
    RESTART_AGENTS,
    RESTART_AGENTS_JSON,
    create_wazuh_queue_socket_msg,
    encode_agent_command,
)

TAIL = " - null (from_the_server) (no_rule_id)"
AR_JSON = json.dumps({"version": 1, "origin": {"name": "", "module": "m"}, "command": "c", "parameters": {}})


@pytest.mark.parametrize(
    ("msg", "agent_id", "msg_type", "datagram", "confirmation"),
    [
        (HC_SK_RESTART, "001", "", "N!S 001 syscheck restart", "Restarting Syscheck on agent"),
        (HC_SK_RESTART, "", "", "A!N (null) syscheck restart", "Restarting Syscheck on all agents"),
        (HC_FORCE_RECONNECT, "001", None, "N!S 001 force_reconnect", "Reconnecting agent"),
        (HC_FORCE_RECONNECT, None, None, "A!N (null) force_reconnect", "Reconnecting all agents"),
        (RESTART_AGENTS, "001", "", "NNS 001 restart-ossec0" + TAIL, "Restarting agent"),
        (RESTART_AGENTS, "", "", "ANN (null) restart-ossec0" + TAIL, "Restarting all agents"),
        ("restart-wazuh0", "12345", "", "NNS 12345 restart-wazuh0" + TAIL, "Restarting agent"),
        (RESTART_AGENTS_JSON, "", "", f"ANN (null) {RESTART_AGENTS_JSON}{TAIL}", "Restarting all agents"),
        (AR_JSON, "001", AR_TYPE, "NNS 001 " + AR_JSON, "Command sent."),
        (AR_JSON, "", AR_TYPE, "ANN (null) " + AR_JSON, "Command sent."),
        ("!custom.sh - arg", "001", AR_TYPE, "NNS 001 !custom.sh - arg", "Command sent."),
        (HC_SK_RESTART, "001", AR_TYPE, "N!S 001 syscheck restart", "Command sent."),
        (RESTART_AGENTS, "001", AR_TYPE, "NNS 001 restart-ossec0", "Command sent."),
    ],
)
def test_datagrams(msg: str, agent_id: str | None, msg_type: str | None, datagram: str, confirmation: str) -> None:
    command = encode_agent_command(msg, agent_id, msg_type)
    assert command.datagram.decode() == "(msg_to_agent) [] " + datagram
    assert command.confirmation == confirmation


def test_to_the_server_itself_it_is_bare() -> None:
    assert encode_agent_command(AR_JSON, "000", AR_TYPE) == (AR_JSON.encode(), "Command sent.")
    assert encode_agent_command(HC_SK_RESTART, "000").datagram == b"(msg_to_agent) [] N!S 000 syscheck restart"


def test_the_json_restart_is_a_version_1_message() -> None:
    message = json.loads(RESTART_AGENTS_JSON)
    assert message["version"] == 1
    assert list(message["origin"]) == ["module"]
    assert message["command"] == "restart-wazuh0"
    assert message["parameters"] == {"extra_args": [], "alert": {}}


def refused(msg: object, agent_id: object = "001", msg_type: object = AR_TYPE) -> str:
    with pytest.raises(WazuhInternalError) as caught:
        encode_agent_command(msg, agent_id, msg_type)  # type: ignore[arg-type]
    assert caught.value.code == 1012
    assert str(caught.value).startswith("Error 1012 - Invalid message to queue: ")
    return caught.value.message


@pytest.mark.parametrize(
    "agent_id",
    [
        "1",
        "12",
        "01",
        "001 ",
        " 001",
        "001 002",
        "001\n",
        "001\0",
        "abc",
        "0x1",
        "-01",
        "\u0660\u0660\u0661",
        "(null)",
        1,
        0,
    ],
)
def test_ids_that_are_none(agent_id: object) -> None:
    assert "id" in refused("syscheck restart", agent_id, "")
    assert "id" in refused(AR_JSON, agent_id)


@pytest.mark.parametrize(
    "msg", ["", " ", "a\nb", "a\r\nb", "a\0b", "syscheck restart\n", "\ud800", None, 5, b"x", {"a": 1}]
)
def test_messages_that_cannot_go(msg: object) -> None:
    assert refused(msg)


def test_it_says_where() -> None:
    assert r"'\n' at 2" in refused("ab\ncd\0")


@pytest.mark.parametrize(
    "msg", ["unknown", "syscheck  restart", "Syscheck restart", "restart-ossec", AR_JSON, "!custom"]
)
def test_without_a_type_only_known_commands_go(msg: str) -> None:
    assert "unknown command" in refused(msg, "001", "")


@pytest.mark.parametrize("msg_type", ["ar", "AR-MESSAGE", 1, b"ar-message", True])
def test_types_that_are_none(msg_type: object) -> None:
    assert "type" in refused("syscheck restart", "001", msg_type)


def test_length_to_the_byte() -> None:
    room = 65349 - len("(msg_to_agent) [] NNS 001 ")
    assert len(encode_agent_command("x" * room, "001", AR_TYPE).datagram) == 65349
    assert "65350 bytes, at most 65349" in refused("x" * (room + 1))
    assert "at most 65349" in refused("x" * (room - 1) + "é")
    assert len(encode_agent_command("x" * 65535, "000", AR_TYPE).datagram) == 65535
    assert "65536 bytes, at most 65535" in refused("x" * 65536, "000")


@pytest.mark.parametrize("flag", ["", "NN", "NNSS", "nns", "XNS", "NXS", "NNX", "N S", "NNS ", "NNS\n", None, 1])
def test_flags_that_are_none(flag: object) -> None:
    with pytest.raises(WazuhInternalError, match=r"Error 1012 .*flags"):
        create_wazuh_queue_socket_msg(flag, "001", "x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flag", "agent_id"), [("ANN", "001"), ("A!N", "001"), ("ANS", "001"), ("ANS", "(null)"), ("NNS", "(null)")]
)
def test_flags_and_id_must_agree(flag: str, agent_id: str) -> None:
    with pytest.raises(WazuhInternalError, match=r"Error 1012 .*flags"):
        create_wazuh_queue_socket_msg(flag, agent_id, "x")


def test_the_text() -> None:
    assert create_wazuh_queue_socket_msg("NNS", "001", "do it") == "(msg_to_agent) [] NNS 001 do it"
    assert create_wazuh_queue_socket_msg("NRN", "001", "x") == "(msg_to_agent) [] NRN 001 x"
    assert (
        create_wazuh_queue_socket_msg("ANN", "(null)", "x", is_restart=True) == "(msg_to_agent) [] ANN (null) x" + TAIL
    )


@given(st.text(max_size=200), st.text(max_size=8), st.sampled_from(["", AR_TYPE]))
def test_what_goes_out_is_read_as_it_was_meant(msg: str, agent_id: str, msg_type: str) -> None:
    try:
        datagram = encode_agent_command(msg, agent_id, msg_type).datagram
    except WazuhInternalError as exc:
        assert exc.code == 1012  # noqa: PT017 -- either outcome is right
        return
    if agent_id == "000":
        assert datagram == msg.encode()
        return
    read = re.fullmatch(rb"\(([^)]*)\) \[([^]]*)\] ([AN][!RN][SN]) (\S+) (.*)", datagram, re.DOTALL)
    assert read is not None
    assert read.group(4).decode() == (agent_id or "(null)")
    assert b"\0" not in read.group(5)
    assert b"\n" not in read.group(5)
