"""Stateful bodies, read: what is an event, what can never be taken, and that every byte belongs somewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.bench import A1, FIM, body, event, metadata
from tests.services.stateful.reading import operation, read, reasons
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.errors import MalformedBody
from wazuh_comms_trio.services.stateful.packet_reader import PacketReader, Unusable, open_packet


class TestEvents:
    def test_a_create_carries_the_metadata_and_its_data(self) -> None:
        (found,) = read(body(event("e1", "create", {"file": {"path": "/x"}})))
        assert (found.index, found.id) == (FIM, "e1")
        made = operation(found)
        assert (made.action, made.index, made.document_id) == ("create", FIM, f"{A1}_e1")
        assert json.loads(made.body or b"") == {"agent": {"id": A1, "name": "a1"}, "file": {"path": "/x"}}

    def test_the_bare_id_where_the_index_has_those(self) -> None:
        (found,) = read(body(event("e1")), document_id="global")
        assert operation(found).document_id == "e1"

    def test_a_delete_takes_no_data_line(self) -> None:
        found = read(body(event("e1", "delete"), event("e2", "update")))
        assert [(operation(item).action, item.id) for item in found] == [("delete", "e1"), ("update", "e2")]
        assert operation(found[0]).body is None

    @pytest.mark.parametrize(
        ("header", "index"),
        [
            ({"module": "fim"}, FIM),
            ({"module": "sca"}, "wazuh-states-sca"),
            ({"module": "vulnerability"}, "wazuh-states-vulnerabilities"),
            ({"module": "inventory", "collector": "packages"}, "wazuh-states-inventory-packages"),
            ({"module": "inventory", "type": "ports"}, "wazuh-states-inventory-ports"),
            ({"module": "inventory", "collector": "system", "type": "ports"}, "wazuh-states-inventory-system"),
            ({"module": "inventory", "collector": None, "type": "hotfixes"}, "wazuh-states-inventory-hotfixes"),
            ({"module": "fim", "collector": "file"}, FIM),
        ],
    )
    def test_indices(self, header: dict[str, Any], index: str) -> None:
        line = json.dumps({"id": "e1", "operation": "delete", **header}).encode()
        (found,) = read(metadata() + b"\n" + line)
        assert operation(found).index == found.index == index

    def test_data_goes_through_as_the_bytes_they_are(self) -> None:
        data = b'{"n": 1.50, "big":1e999, "twice":1, "twice":2, "\\u0061":"\\u00e9\xc3\xa9", "x":{ }}'
        (found,) = read(metadata() + b'\n{"id":"e","module":"fim","operation":"create"}\n' + data)
        assert operation(found).body == metadata()[:-1] + b"," + data[1:]

    @pytest.mark.parametrize("data", [b"{}", b"{ }", b" {} ", b"{\t}"])
    def test_empty_data(self, data: bytes) -> None:
        (found,) = read(metadata() + b'\n{"id":"e","module":"fim","operation":"create"}\n' + data + b"\n")
        assert operation(found).body == metadata()

    @pytest.mark.parametrize("key", [b'"agent"', b'"\\u0061gent"', b'"agen\\u0074"'])
    def test_the_metadatas_agent_wins(self, key: bytes) -> None:
        data = b'{"a":1.50,' + key + b':{"id":"someone else"},"b":"\\u00e9"}'
        (found,) = read(metadata() + b'\n{"id":"e","module":"fim","operation":"create"}\n' + data)
        assert operation(found).body == metadata()[:-1] + b',"a":1.50,"b":"\\u00e9"}'

    @pytest.mark.parametrize(
        "name", ["agent.id", "agent.host.os.name", "agent.", "\\u0061gent.id", "agent\\u002eid", "agent\\u002Eid.x"]
    )
    @pytest.mark.parametrize("blank", [b"", b" "])  # as plain events are written, and otherwise
    def test_a_name_that_reaches_into_the_agent_by_dots_is_the_agents(self, name: str, blank: bytes) -> None:
        data = b'{"a":1.50,"%b":"someone else","b":{"agent.id":"a file\'s"},"agents.id":2}' % name.encode()
        (found,) = read(metadata() + b'\n{"id":"e",%b"module":"fim","operation":"create"}\n' % blank + data)
        assert operation(found).body == metadata()[:-1] + b',"a":1.50,"b":{"agent.id":"a file\'s"},"agents.id":2}'

    def test_every_member_of_the_metadata_wins(self) -> None:
        line = b'{"agent":{"id":"%s"},"cluster":"c1"}' % A1.encode()
        (found,) = read(
            line + b'\n{"id":"e","module":"fim","operation":"create"}\n{"cluster":"mine","x":1,"cluster.y":2}'
        )
        assert operation(found).body == line[:-1] + b',"x":1}'

    def test_line_ends(self) -> None:
        packet = body(event("e1"), event("e2", "delete"))
        for text in (packet + b"\n", packet.replace(b"\n", b"\r\n"), packet + b"\n\r\n \n\t\n\n"):
            found = read(text)
            assert [item.id for item in found] == ["e1", "e2"]
            assert operation(found[0]).body == operation(read(packet)[0]).body

    def test_ids_repeat(self) -> None:
        assert [item.id for item in read(body(event("e"), event("e", "update"), event("e", "delete")))] == ["e"] * 3

    def test_a_bytearray_is_as_good(self) -> None:
        packet = body(event("e1", data={"agent": 1, "b": 2}), event("e2"), b"\n[]")
        assert read(bytearray(packet)) == read(packet)  # type: ignore[arg-type]

    def test_a_metadata_line_alone_has_no_events(self) -> None:
        assert read(metadata()) == read(metadata() + b"\r\n\n") == []

    def test_in_steps_and_again(self) -> None:
        packet = body(*(event(f"e{number}") for number in range(10)))
        reader = open_packet(packet, A1, Events())
        pieces = []
        while not reader.exhausted:
            pieces.append(reader.read(3, 10**9))
        assert [len(piece) for piece in pieces] == [3, 3, 3, 1]
        assert [item for piece in pieces for item in piece] == read(packet)
        reader.rewind()
        assert [item.id for item in reader.read(10**6, 1)] == ["e0"]


class TestUnusable:
    @pytest.mark.parametrize(
        ("lines", "index", "event_id", "reason"),
        [
            (b'{"id":"x","module":"fim","operation":"upsert"}\n{}', FIM, "x", "Unknown operation"),
            (b'{"id":"x","module":"fim","operation":"CREATE"}\n{}', FIM, "x", "Unknown operation"),
            (b'{"id":"x","module":"fim","operation":""}\n{}', FIM, "x", "The header line has no operation"),
            (b'{"id":"x","module":"","operation":"create"}\n{}', None, "x", "The header line has no module"),
            (b'{"id":"x","module":"mail","operation":"create"}\n{}', None, "x", "Unknown module"),
            (b'{"id":"x","module":"inventory","operation":"delete"}', None, "x", "The header line has no collector"),
            (
                b'{"id":"x","module":"inventory","collector":"pets","operation":"create"}\n{}',
                None,
                "x",
                "Unknown collector",
            ),
            (b'{"module":"fim","operation":"delete"}', FIM, None, "The header line has no id"),
            (b'{"id":"","module":"fim","operation":"create"}\n{}', FIM, "", "The header line has no id"),
            (b'{"id":null,"module":"fim","operation":"create"}\n{}', FIM, None, "The header line has no id"),
            (b'{"id":7,"module":"fim","operation":"create"}\n{}', FIM, None, "The header line's id isn't a string"),
            (b'{"id":"x\\u0000","module":"fim","operation":"create"}\n{}', FIM, "x\0", "The id contains a NUL"),
            (
                b'{"id":"x","id":"x","module":"fim","operation":"create"}\n{}',
                FIM,
                "x",
                "A key stands twice in the header line",
            ),
            (
                b'{"id":"x","\\u0069d":"y","module":"fim","operation":"delete"}',
                FIM,
                "y",
                "A key stands twice in the header line",
            ),
            (
                b'{"id":"x","module":"fim","operation":"delete","more":{"a":1,"a":2}}',
                FIM,
                "x",
                "A key stands twice in the header line",
            ),
            (b'{"id":"x","module":"fim","operation":"create"}\n[]', FIM, "x", "The data line is not a JSON object"),
            (b'{"id":"x","module":"fim","operation":"create"}\n"a"', FIM, "x", "The data line is not a JSON object"),
            (b'{"id":"x","module":"fim","operation":"create"}\n{"a":"\xff"}', FIM, "x", "The data line is not UTF-8"),
            (b'{"id":"x","module":"fim","operation":"create"}\n{"\xc3":1}', FIM, "x", "The data line is not UTF-8"),
        ],
    )
    def test_one_bad_event_among_others(
        self, lines: bytes, index: str | None, event_id: str | None, reason: str
    ) -> None:
        packet = body(event("before"), b"\n" + lines, event("after"))
        before, bad, after = read(packet)
        assert (before.id, after.id) == ("before", "after")
        assert operation(before)
        assert operation(after)
        assert (bad.index, bad.id, bad.action) == (index, event_id, Unusable(reason))
        assert packet[bad.start : bad.end] == lines

    @pytest.mark.parametrize(
        "data", [b"nonsense", b'{"a":1', b'{"a":1}}', b'{"a":1} {"b":2}', b'{"a":"\x00"}', b'{"a":tru}', b"\x00"]
    )
    def test_bad_data(self, data: bytes) -> None:
        bad, after = read(body(b'\n{"id":"x","module":"fim","operation":"create"}\n' + data, event("after")))
        assert isinstance(bad.action, Unusable)
        assert bad.action.reason.startswith("The data line is not JSON: ")
        assert after.id == "after"

    @pytest.mark.parametrize(
        "header",
        [
            b"nonsense",
            b"[]",
            b'"x"',
            b"17",
            b'{"id":"x"',
            b'{"id":"\xff"}',
            b"\0",
            b'{"id":"x","module":"fim"}',
            b'{"id":"x","operation":"create"}',
            b'{"id":"x","module":["fim"],"operation":"delete"}',
            b'{"id":"x","module":"fim","operation":null}',
        ],
    )
    def test_what_is_no_header_begins_a_gap_up_to_the_next_one(self, header: bytes) -> None:
        gap = header + b'\n{"file":{}}\n \r\n[1]'
        packet = body(event("before"), b"\n" + gap, event("after"), event("last", "delete"), b"\n" + header)
        before, bad, after, last = read(packet)
        assert (before.id, after.id, last.id) == ("before", "after", "last")
        assert (bad.index, bad.id) == (None, None)
        assert reasons([bad]) == ["These lines belong to no event: where its header was due, there was none"]
        assert packet[bad.start : bad.end] == gap
        assert packet[last.start : last.end].endswith(b"\n" + header)  # a delete's data, whatever it is

    def test_a_header_without_its_data_line_has_empty_data(self) -> None:
        lines = b'{"id":"x","module":"fim","operation":"create"}'
        for end in (b"", b"\n", b"\r\n\n", event("after"), b"\n \n\r" + event("after")):
            packet = body(event("before"), b"\n" + lines + end)
            before, bare = read(packet)[:2]
            assert before.id == "before"
            assert operation(bare).body == metadata()
            assert packet[bare.start : bare.end] == lines

    def test_two_headers_in_a_row_make_no_false_document(self) -> None:
        """Also among plain events, where many are read at a time."""
        plain = b'{"id":"%b","module":"fim","operation":"create"}'
        lines = [b'%b\n{"n":1}' % (plain % b"p%d" % number) for number in range(50)]
        lines[20:20] = [plain % b"bare", plain % b"bare too"]
        found = read(metadata() + b"\n" + b"\n".join(lines))
        assert reasons(found) == [None] * 52
        assert [item.id for item in found if b'"n":1' not in (operation(item).body or b"")] == ["bare", "bare too"]
        assert all(b'"module"' not in (operation(item).body or b"") for item in found)

    def test_a_deletes_data_is_dropped(self) -> None:
        for data in (b"\n{}", b"\n \n{}", b"\nnonsense", b'\n{"a":1}\r'):
            gone, after = read(body(event("gone", "delete"), data, event("after")))
            assert operation(gone).body is None
            assert operation(after)

    def test_further_members_are_no_harm_where_a_header_is_due(self) -> None:
        newer = b'{"id":"%b","module":"fim","operation":"create","version":3}'
        packet = body(b"\n" + newer % b"1", b'\n{"a":1}\n', newer % b"2", b'\n{"a":2}')
        assert [(item.id, b'"a":' in (operation(item).body or b"")) for item in read(packet)] == [
            ("1", True),
            ("2", True),
        ]
        # As a data line it is data: an agent's own business.
        (found,) = read(body(b"\n" + newer % b"1", b"\n" + newer % b"2"))
        assert b'"version":3' in (operation(found).body or b"")

    def test_a_header_of_64_kib_at_most(self) -> None:
        def header(length: int) -> bytes:
            line = b'{"id":"x","module":"fim","operation":"delete","x":""}'
            return line[:-2] + b"y" * (length - len(line)) + line[-2:]

        assert reasons(read(body(b"\n" + header(65536), b" \r"))) == [None]
        assert reasons(read(body(b"\n" + header(65537)))) != [None]

    def test_a_long_gap_is_cut_at_line_ends(self) -> None:
        line = b"x" * 2**20
        packet = body(
            b"\n" + b"\n".join([line] * 20), event("after"), b"\n[" + b"1" * (9 * 2**20) + b"]", event("last")
        )
        found = read(packet)
        sizes = [item.end - item.start for item in found if type(item.action) is Unusable]
        assert sizes == [7 * (2**20 + 1) - 1, 7 * (2**20 + 1) - 1, 6 * (2**20 + 1) - 1, 9 * 2**20 + 2]
        assert found[-1].id == "last"

    @pytest.mark.parametrize("opening", [b"[", b'{"a":'])
    @pytest.mark.parametrize("depth", [10_000, 1_000_000])
    def test_data_nested_too_deeply(self, opening: bytes, depth: int) -> None:
        closing = (b"]" if opening == b"[" else b"1}") + (b"]" if opening == b"[" else b"}") * (depth - 1)
        data = b'{"x":' + opening * depth + closing + b"}"
        bad, after = read(body(b'\n{"id":"x","module":"fim","operation":"create"}\n' + data, event("after")))
        assert bad.action == Unusable("The data line is nested too deeply")
        assert after.id == "after"

    @pytest.mark.parametrize("levels", [201, 500, 940, 960])
    def test_a_result_that_could_be_read_here_and_not_be_written_elsewhere(self, levels: int) -> None:
        """Where it is written the stack may be deeper, and others' results are in the same call."""
        header = b'\n{"id":"k","module":"command","operation":"update"}\n'
        data = b'{"command":{"result":{"data":%b}}}' % (b"[" * levels + b"]" * levels)
        bad, after = read(body(header + data, event("after")))
        assert bad.action == Unusable("The data line is nested too deeply")
        assert after.id == "after"

    @pytest.mark.parametrize(("operation_", "data"), [("create", b"\n{}"), ("delete", b"")])
    def test_a_header_nested_too_deeply_is_an_object_all_the_same(self, operation_: str, data: bytes) -> None:
        deep = b"[" * 10_000 + b"]" * 10_000
        header = b'{"deep":%b,"id":"x","module":"fim","operation":"%b"}' % (deep, operation_.encode())
        bad, after = read(body(b"\n" + header + data, event("after")))
        assert (bad.index, bad.id, bad.action) == (FIM, "x", Unusable("The header line is nested too deeply"))
        assert after.id == "after"

    def test_a_header_too_long_to_be_one(self) -> None:
        header = b'{"id":"x","module":"fim","operation":"delete","x":%b}' % (b"[" * 10**6 + b"]" * 10**6)
        bad, after = read(body(b"\n" + header, event("after")))
        assert isinstance(bad.action, Unusable)
        assert after.id == "after"

    def test_unknown_fields_of_a_header_are_no_harm(self) -> None:
        line = (
            b'{"id":"x","module":"fim","operation":"delete","v":1e999,"more":{"a":[1,"\xc3\xa9"]},"s":"{\\"id\\":1}"}'
        )
        (found,) = read(body(b"\n" + line))
        assert operation(found).document_id == f"{A1}_x"

    def test_document_ids_up_to_512_bytes(self) -> None:
        room = 512 - len(A1) - 1
        longest, too_long = "x" * room, "x" * (room + 1)
        accents = "\u00e9" * (room // 2 + 1)
        found = read(body(event(longest), event(too_long), event(accents), event("e2")))
        assert reasons(found) == [None, *["The document id is longer than 512 bytes"] * 2, None]
        assert found[1].id == too_long
        assert reasons(read(body(event("x" * 512), event("x" * 513)), document_id="global")) == [
            None,
            "The document id is longer than 512 bytes",
        ]

    def test_costly_lines_shorten_a_step(self) -> None:
        packet = body(*(b'\n{"id":"x","id":"x","module":"fim","operation":"delete"}' for _ in range(1000)))
        reader = open_packet(packet, A1, Events())
        assert len(reader.read(1000, 65536)) < 50


# --- whatever comes ---

pieces = st.one_of(
    st.sampled_from(
        [event("e1"), event("e2", "delete"), event("e3", data={"agent": 1}), event("e4", module="command")]
    ),
    st.sampled_from(
        [b"\n", b"\r\n", b"{}", b"[]", b'{"a":', b"\xff", b"\0", b'{"id":1,"id":2}', b'"', b"\\", b"{", b"}"]
    ),
    st.binary(max_size=20),
)


def assert_all_accounted_for(packet: bytes, reader: PacketReader) -> None:
    lead = len(packet) - len(packet.lstrip(b" \t\r\n"))
    position = packet.find(b"\n", lead)
    while not reader.exhausted:
        for found in reader.read(7, 500):
            assert packet[position : found.start].startswith(b"\n")  # a line end, blank lines perhaps, between events
            assert not packet[position : found.start].strip(b" \t\r\n")
            assert found.end > found.start
            position = found.end
    assert packet[max(position, 0) :].strip(b" \t\r\n") in (b"", packet.strip(b" \t\r\n"))


@given(st.lists(pieces, max_size=12))
def test_garbage_never_raises_and_no_byte_is_lost(parts: list[bytes]) -> None:
    packet = metadata() + b"\n" + b"".join(parts)
    assert_all_accounted_for(packet, open_packet(packet, A1, Events()))


@given(st.lists(st.sampled_from([event("e1"), event("e2", "delete"), event("\u00e9")]), max_size=5), st.data())
def test_a_cut_body_loses_nothing_before_the_cut(events: list[bytes], data: st.DataObject) -> None:
    packet = body(*events)
    cut = packet[: data.draw(st.integers(len(metadata()), len(packet)))]
    whole, part = read(packet), read(cut)
    assert_all_accounted_for(cut, open_packet(cut, A1, Events()))
    assert part[:-1] == whole[: max(0, len(part) - 1)]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_malformed_body_or_events(packet: bytes) -> None:
    try:
        reader = open_packet(packet, A1, Events())
    except MalformedBody:
        return
    assert_all_accounted_for(packet, reader)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6) | st.just("agent"), json_values, max_size=5), st.booleans())
def test_any_data_is_merged_under_the_metadata(data: dict[str, Any], ascii_only: bool) -> None:
    line = json.dumps(data, ensure_ascii=ascii_only).encode()
    (found,) = read(metadata() + b'\n{"id":"e","module":"fim","operation":"update"}\n' + line)
    assert json.loads(operation(found).body or b"") == {**data, **json.loads(metadata())}
