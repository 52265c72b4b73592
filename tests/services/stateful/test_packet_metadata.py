"""The metadata line, and reports of commands."""

from __future__ import annotations

import logging

import pytest

from tests.services.bench import A1, A2, body, event
from tests.services.stateful.reading import operation, read
from wazuh_comms_trio.backends.interfaces import CommandReport, CommandResult
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.errors import MalformedBody
from wazuh_comms_trio.metrics.refusal_log import RefusalLog
from wazuh_comms_trio.services.stateful.packet_reader import Event, Unusable, open_packet


class TestCommandModule:
    def report(self, data: bytes, operation_: bytes = b"update", event_id: bytes = b"c1") -> Event:
        header = b'\n{"module":"command","id":"%b","operation":"%b"}' % (event_id, operation_)
        (found,) = read(body(header + (b"\n" + data if data else b"")))
        assert found.index == ".commands"
        return found

    def test_a_result(self) -> None:
        found = self.report(b'{"command":{"result":{"code":0,"message":"done","data":{"a":[1]}}}}')
        assert found.action == CommandReport(A1, "c1", CommandResult(0, "done", {"a": [1]}))
        assert found.id == "c1"

    def test_with_the_agents_own_description(self) -> None:
        found = self.report(b'{"agent":{"id":"x"},"command":{"result":{"code":2}}}')
        assert found.action == CommandReport(A1, "c1", CommandResult(2))

    @pytest.mark.parametrize(
        "data",
        [
            b"{}",
            b'{"command":{}}',
            b'{"command":{"status":"success"}}',
            b'{"command":{"result":{"code":0},"status":"success"}}',
            b'{"command":{"result":{"code":0}},"other":1}',
            b'{"command":{"result":{"code":"0"}}}',
            b'{"command":{"result":[]}}',
            b'{"command.result":{"code":0}}',
        ],
    )
    def test_anything_else(self, data: bytes) -> None:
        found = self.report(data)
        assert isinstance(found.action, Unusable)
        assert found.action.reason.startswith("Only updates of a command's result are taken: ")

    @pytest.mark.parametrize(("operation_", "data"), [(b"create", b'{"command":{}}'), (b"delete", b"")])
    def test_other_operations(self, operation_: bytes, data: bytes) -> None:
        assert self.report(data, operation_).action == Unusable("Only updates of a command's result are taken")

    def test_bad_data(self) -> None:
        deep = b'{"command":{"result":{"code":0,"data":' + b"[" * 10_000
        assert self.report(deep).action == Unusable("The data line is nested too deeply")
        assert isinstance(self.report(b"nonsense").action, Unusable)
        assert isinstance(self.report(b'{"command":{"result":{"code":0,"message":"\xff"}}}').action, Unusable)

    def test_a_long_id(self) -> None:
        found = self.report(b'{"command":{"result":{"code":0}}}', event_id=b"x" * 513)
        assert found.action == Unusable("The document id is longer than 512 bytes")


class TestMetadata:
    @pytest.mark.parametrize("packet", [b"", b"\n", b"\r\n \t\n"])
    def test_an_empty_body(self, packet: bytes) -> None:
        with pytest.raises(MalformedBody, match="The request body is empty"):
            read(packet)

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (b"", "The metadata line has no agent"),  # the blank line is skipped, and the header isn't one
            (b'{"agent":{"id":"a"},"agent.id":"b"}', "A name in the metadata line reaches into the agent by dots"),
            (
                b'{"agent":{"id":"a"},"\\u0061gent\\u002ehost.os":1}',
                "A name in the metadata line reaches into the agent by dots",
            ),
            (b"nonsense", "The metadata line is not a JSON object"),
            (b"[]", "The metadata line is not a JSON object"),
            (b'{"agent":{"id":"\xff"}}', "The metadata line is not a JSON object"),
            (b'{"agent":{"id":"a"},"x":"\xff"}', "The metadata line is not a JSON object"),
            (b'{"agent":{"id":"a"},"x":"\x00"}', "The metadata line is not a JSON object"),
            (b'{"agent":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "The metadata line is not a JSON object"),
            (b'{"agent":{"id":"a"},"x":1e999}', "A number in the metadata line is out of range"),
            (b'{"agent":{"id":"a"},"x":[-1e400]}', "A number in the metadata line is out of range"),
            (b'{"agent":{"id":"a"},"x":%b}' % (b"7" * 5000), "A number in the metadata line is out of range"),
            (b"{}", "The metadata line has no agent"),
            (b'{"agent":"a"}', "The metadata line has no agent"),
            (b'{"agent":{}}', "The metadata line's agent has no id"),
            (b'{"agent":{"id":7}}', "The metadata line's agent has no id"),
            (b'{"agent":{"id":"a","id":"a"}}', "A key stands twice in the metadata line"),
            (b'{"agent":{"id":"a"},"agent":{"id":"a"}}', "A key stands twice in the metadata line"),
            (b'{"agent":{"id":"a"},"x":{"\\u0061":1,"a":2}}', "A key stands twice in the metadata line"),
            (b'{"agent":{"id":"' + b"a" * 65536 + b'"}}', "The metadata line is longer than 65536 bytes"),
        ],
    )
    def test_a_bad_line_is_the_whole_bodys(self, line: bytes, reason: str) -> None:
        for _ in range(2):  # a bad line isn't remembered as a good one
            with pytest.raises(MalformedBody) as caught:
                read(line + event("e1"))
            assert caught.value.message == reason
            assert caught.value.code == 2709

    def test_another_agents_line(self) -> None:
        with pytest.raises(MalformedBody) as caught:
            read(body(event(), agent_id=A2))
        assert (caught.value.message, caught.value.code) == ("Agent id does not match the token", 2709)

    def test_upper_case_is_the_same_agent(self) -> None:
        assert len(read(body(event(), agent_id=A1.upper()))) == 1

    def test_another_agents_line_where_that_is_allowed(self, caplog: pytest.LogCaptureFixture) -> None:
        (found,) = read(body(event("e1"), agent_id=A2), foreign_agent="allow")
        assert operation(found).document_id == f"{A1}_e1"
        log = RefusalLog(logging.getLogger("refusals"))
        for settings in (Events(foreign_agent="allow"), *[Events(foreign_agent="log")] * 2):
            reader = open_packet(body(event(), agent_id=A2), A1, settings, log)
            assert len(reader.read(10, 65536)) == 1
        assert caplog.messages == [f"events of agent '{A2}' came with the token of {A1}"]

    def test_escapes_and_blanks_in_the_line(self) -> None:
        line = b' {"agent" : {"id":"%b", "name":"\\u00e9 \\"x\\""} , "n":[1,{}] }\t' % A1.encode()
        (found,) = read(line + event("e1", data={"x": 1}))
        assert operation(found).body == line.strip()[:-1].rstrip() + b',"x": 1}'
