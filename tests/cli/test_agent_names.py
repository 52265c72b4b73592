"""Agents by name, listings of some of them, and tables on narrow terminals."""

from __future__ import annotations

import io
import json
import sys
import time
import unicodedata
from typing import Any

import pytest
import trio

from tests.cli.conftest import Tool
from tests.cli.test_events import fill, put_aside, stateful
from wazuh_comms_trio.backends.factory import open_backends
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.presence import AHEAD, Heard, LastSeen
from wazuh_comms_trio.cli import output
from wazuh_comms_trio.cli.agents.listing import with_status
from wazuh_comms_trio.config.models import Config

ONE, TWO, THREE = (f"0194857f-39b5-7bfb-a7bc-c5c6835f03d{n}" for n in (1, 2, 3))
HOUR = 3600.0


@pytest.fixture
def agents(config: Config) -> None:
    now = time.time()
    enrolled = [
        Agent(ONE, "web-1", "h", version="v6.0.10", groups=("web",), status="active", last_login=now - HOUR / 4),
        Agent(TWO, "web-2", "h", version="v6.0.9", groups=("web", "db"), last_login=now - 2 * HOUR),
        Agent(THREE, "db-1", "h", groups=("db",)),
    ]

    async def run() -> None:
        async with open_backends(config) as backends:
            for agent in enrolled:
                await backends.agents.add(agent)

    trio.run(run)


def names(tool: Tool, *words: str) -> list[str]:
    return [agent["name"] for agent in tool("agents", "list", "--json", *words).document]


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ["db-1", "web-1", "web-2"]),
        (("--group", "web"), ["web-1", "web-2"]),
        (("--group", "all"), ["db-1", "web-1", "web-2"]),
        (("--status", "active"), ["web-1"]),
        (("--silent-for", "1h"), ["db-1", "web-2"]),
        (("--silent-for", "3h"), ["db-1"]),
        (("--silent-for", "10s"), ["db-1", "web-1", "web-2"]),
        (("--version", "v6.0.9"), ["web-2"]),
        (("--version", "v6.0.*"), ["web-1", "web-2"]),
        (("--name", "web-*"), ["web-1", "web-2"]),
        (("--name", "WEB-*"), []),
        (("--name", "web-*", "--silent-for", "1h"), ["web-2"]),
        (("--sort", "version"), ["db-1", "web-2", "web-1"]),
        (("--sort", "last-login", "--reverse"), ["web-1", "web-2", "db-1"]),
        (("--sort", "uuid", "--limit", "2"), ["web-1", "web-2"]),
    ],
)
def test_some_agents(tool: Tool, words: tuple[str, ...], expected: list[str]) -> None:
    assert names(tool, *words) == expected


@pytest.mark.usefixtures("agents")
def test_none_of_them(tool: Tool) -> None:
    none = tool("agents", "list", "--group", "mail")
    assert (none.status, none.out, none.err) == (0, "", "none of 3 agents matches\n")
    for words in (
        ("--silent-for", "1"),
        ("--silent-for", "0h"),
        ("--sort", "key"),
        ("--limit", "0"),
        ("--status", "x"),
    ):
        assert tool("agents", "list", *words).status == 2


@pytest.mark.usefixtures("agents")
def test_a_name_is_as_good_as_a_uuid(tool: Tool, config: Config) -> None:
    assert tool("agents", "show", "web-1", "--json").document["uuid"] == ONE
    assert tool("agents", "show", ONE.upper(), "--json").document["uuid"] == ONE
    assert tool("agents", "rekey", "web-1", "--json").document["uuid"] == ONE
    sent = tool("commands", "send", "--agent", "web-1", "restart", "--json").document
    assert sent["target"] == {"type": "agent", "id": ONE}
    assert len(tool("commands", "list", "--agent", "web-1", "--json").document) == 1
    assert tool("commands", "list", "--agent", "web-2", "--json").document == []
    put_aside(config, stateful('{"module":"fim"}', "{}"))
    assert len(tool("quarantine", "list", "--agent", "web-1", "--json").document) == 1
    assert tool("quarantine", "drop", "--agent", "web-1", "--json").document == {"dropped": 1}
    assert tool("agents", "remove", "web-1", "--json").document == {"uuid": ONE, "removed": True}
    for words in (("agents", "show"), ("commands", "send", "restart", "--agent"), ("quarantine", "list", "--agent")):
        unknown = tool(*words, "web-1")
        assert (unknown.status, unknown.err) == (1, "wazuh-comms: there is no agent of the name web-1\n")


@pytest.mark.usefixtures("agents")
def test_a_name_in_use(tool: Tool) -> None:
    refused = tool("agents", "add", "web-1")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err == f"wazuh-comms: the name web-1 is in use by {ONE}; with --duplicate it is given again\n"
    other = tool("agents", "add", "web-1", "--duplicate", "--json").document["uuid"]
    for words in (("agents", "remove"), ("commands", "send", "restart", "--agent"), ("events", "tail", "--agent")):
        several = tool(*words, "web-1")
        both = ", ".join(sorted([ONE, other]))
        assert several.status == 1
        assert several.err == f"wazuh-comms: 2 agents have the name web-1: {both}; say which by its uuid\n"
    assert tool("agents", "remove", other).status == 0
    assert tool("agents", "show", "web-1", "--json").document["uuid"] == ONE


@pytest.mark.usefixtures("agents")
def test_a_tail_of_some_events(tool: Tool, config: Config) -> None:
    fill(config)

    def kinds(*words: str) -> list[Any]:
        return [line.split()[1] for line in tool("events", "tail", *words).lines]

    assert kinds() == ["stateless", "stateful"]
    assert kinds("-n", "1") == ["stateful"]
    assert kinds("-n", "5") == ["stateless", "stateful"]
    assert kinds("--agent", "web-1") == kinds("--agent", ONE.upper()) == ["stateless", "stateful"]
    assert kinds("--agent", "web-2") == kinds("--agent", "0194857f-39b5-7bfb-a7bc-c5c6835f03d9") == []
    assert kinds("--module", "fim") == ["stateful"]
    assert kinds("--module", "logcollector", "-n", "1") == ["stateless"]
    assert kinds("--since", "1h") == ["stateless", "stateful"]
    assert kinds("--since", "2999-01-01T00:00:00Z") == []
    none = tool("events", "tail", "--module", "nothing")
    assert (none.status, none.out, none.err) == (0, "", "no event matches\n")
    assert tool("events", "tail", "--module", "nothing", "--json").err == ""
    for words in (("--since", "soon"), ("-n", "0"), ("--module", "")):
        assert tool("events", "tail", *words).status == 2


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize("columns", [80, 120])
def test_a_table_fits_the_terminal(tool: Tool, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    tool("agents", "add", "a-name-of-many-words-" * 6, "--group", "an-unusually-long-name-of-a-group")
    wide = tool("agents", "list").lines
    assert max(map(len, wide)) > 120
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert output.terminal_width() == columns
    lines = tool("agents", "list").lines
    assert max(map(len, lines)) <= columns
    assert [line.split()[0] for line in lines] == [line.split()[0] for line in wide]
    assert "\N{HORIZONTAL ELLIPSIS}" in lines[1]


@pytest.mark.usefixtures("agents")
def test_agents_have_their_names_in_tables_unless_several_have_it(tool: Tool, config: Config) -> None:
    put_aside(config, stateful('{"module":"fim"}', "{}"))
    for name in ("web-1", "web-2"):
        assert tool("commands", "send", "--agent", name, "restart").status == 0
    parent = tool("commands", "send", "--group", "db", "restart").out.strip()

    def called() -> list[str]:
        listed = tool("commands", "list").lines[1:]
        parts = tool("commands", "list", "--of", parent).lines[1:]
        return [*(line.split()[2] for line in listed + parts), tool("quarantine", "list").lines[1].split()[2]]

    assert called() == ["db", "web-2", "web-1", "web-2", "db-1", "web-1"]
    assert tool("agents", "add", "web-1", "--duplicate").status == 0
    assert tool("agents", "add", ONE, "--uuid", "0194857f-39b5-7bfb-a7bc-c5c6835f03d9").status == 0
    assert tool("agents", "remove", "web-2").status == 0
    assert called() == ["db", TWO, ONE, TWO, "db-1", ONE]
    (line,) = [line for line in tool("commands", "show", f"{parent}_{THREE}").lines if line.startswith("target")]
    assert line.split(None, 1)[1] == f"agent db-1 ({THREE})"


#: What a table shows at such a width.
NARROW = {
    110: ("UUID", "NAME", "STATUS", "GROUPS", "LAST SEEN"),
    80: ("UUID", "NAME", "STATUS", "LAST SEEN"),
    70: ("UUID", "NAME", "STATUS", "LAST SEEN"),
    60: ("NAME", "STATUS", "GROUPS", "LAST SEEN"),
    30: ("NAME", "STATUS", "GROUPS"),
}


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize("columns", NARROW)
def test_a_narrow_terminal_shows_fewer_columns(tool: Tool, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    tool("agents", "add", "a-name-of-many-words-" * 6, "--group", "an-unusually-long-name-of-a-group")
    parent = tool("commands", "send", "--all", "restart").out.strip()
    monkeypatch.setattr(output, "terminal_width", lambda: columns)
    lines = tool("agents", "list").lines
    assert lines[0].split() == " ".join(NARROW[columns]).split()
    assert len(lines) == 5
    for words in (("commands", "list", "--of", parent), ("commands", "list", "--children"), ("commands", "list")):
        listed = tool(*words).lines
        assert max(map(len, lines + listed)) <= columns, listed
        assert all(word in listed[0].split() for word in ("TARGET", "STATUS"))


def test_columns_that_fit_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: 22)
    row, heads = ("w" * 20, "c" * 8, "x" * 8), ("WIDE", "C", "X")
    assert [line.split() for line in output.table(heads, [row], ("X", "WIDE")).split("\n")] == [["C", "X"], [*row[1:]]]
    assert output.table(heads, [row]).split("\n")[0].split() == [*heads]
    monkeypatch.setattr(output, "terminal_width", lambda: 40)  # of which a date would take too much
    row = ("i" * 60, "agent web-0971", "restart", "failed: cancelled", "2025-03-11T19:12:36Z")
    shown = output.table((*"ITASC",), [row], (*"CAI",)).split("\n")[1]
    assert shown.split("  ") == ["agent web-0971", "restart", "failed: cancel\N{HORIZONTAL ELLIPSIS}"]
    monkeypatch.setattr(output, "terminal_width", lambda: 80)  # where one column less leaves names that differ
    row = (ONE, "fleet-1073-00001", "active", "web,datenbank,linux", "12-01 02:32")
    assert output.table((*"UNSGL",), [row], (*"GUL",)).split("\n")[1].split("  ") == [*row[:3], row[4]]


def test_heads_stand_above_a_page_that_shows_other_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", shown := Terminal())
    monkeypatch.setenv("COLUMNS", "31")
    with output.Output(as_json=False).listing(("ID", "NAME", "LAST"), ("NAME",)) as listing:
        for known_by in ("1", "2" * 17, "3"):
            listing.page([{}], [(known_by, "web-1", "2025-03-11T19:12:36Z")])
    assert [line.split() for line in shown.getvalue().splitlines()] == [
        ["ID", "NAME", "LAST"],
        ["1", "web-1", "2025-03-11T19:12:36Z"],
        ["ID", "LAST"],
        ["2" * 17, "03-11", "19:12"],
        ["3", "03-11", "19:12"],
    ]


def test_what_was_heard_of_an_agent_decides_its_status(tool: Tool, config: Config) -> None:
    """Not the log-in alone, and not what stands in the registry."""
    now = time.time()

    async def prepare() -> None:
        async with open_backends(config) as backends:
            for agent_id, name, login in (
                (ONE, "heard", now - 5 * HOUR),
                (TWO, "gone", now - 5 * HOUR),
                (THREE, "new", None),
            ):
                await backends.agents.add(Agent(agent_id, name, "h", status="active", last_login=login))
            await backends.presence.record([Heard(ONE, now - 60), Heard(TWO, now - 2 * HOUR)])

    trio.run(prepare)
    for status, name in (("active", "heard"), ("disconnected", "gone"), ("never", "new")):
        assert names(tool, "--status", status) == [name]
    assert names(tool, "--silent-for", "3h") == ["new"]
    assert names(tool, "--silent-for", "1h", "--sort", "last-seen", "--reverse") == ["gone", "new"]
    shown = tool("--json", "agents", "show", "heard").document
    assert (shown["status"], shown["node"]) == ("active", None)
    assert shown["last_seen"] > shown["last_login"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


#: Log-in, heard; both in seconds before now; expected: moment, status.
MOMENTS: list[tuple[float | None, float | None, float | None, str]] = [
    (None, None, None, "never"),
    (10, None, 10, "active"),
    (5000, 10, 10, "active"),
    (5000, -AHEAD, 0, "active"),
    (5000, -AHEAD - 1, 5000, "disconnected"),
    (10, -86400, 10, "active"),
    (-86400, 5000, 5000, "disconnected"),
    (-86400, -86400, None, "disconnected"),
    (None, -86400, None, "disconnected"),
]


@pytest.mark.parametrize(("login", "heard", "moment", "status"), MOMENTS)
def test_a_moment_that_lies_ahead_is_not_believed(
    login: float | None, heard: float | None, moment: float | None, status: str
) -> None:
    now = 1_750_000_000.0
    agent = Agent("a", "n", "k", last_login=None if login is None else now - login)
    one = with_status(agent, None if heard is None else LastSeen(now - heard), now, 1200)
    assert (one.moment, one.status) == (None if moment is None else now - moment, status)


@pytest.mark.parametrize("where", [io.StringIO, Terminal])
@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_listing_in_pages_is_one_json_document(
    where: type[io.StringIO], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte by byte what it is in one piece, and each page is out before the next is read."""
    documents = [{"n": number, "list": [], "text": "a\nb\u20ac", "none": None} for number in range(size)]
    monkeypatch.setattr(sys, "stdout", shown := where())
    printed = [0]
    with output.Output(as_json=True).listing(("N",)) as listing:
        for start in range(0, size, 3):
            part = documents[start : start + 3]
            listing.page(part, [(one["n"],) for one in part])
            printed.append(len(shown.getvalue()))
    assert shown.getvalue() == json.dumps(documents, indent=2 if shown.isatty() else None) + "\n"
    assert sorted(set(printed)) == printed


def test_a_table_in_pages_keeps_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", shown := io.StringIO())
    with output.Output(as_json=False).listing(("ID", "NAME", "LAST")) as listing:
        listing.page([], [])
        listing.page([{}, {}], [("1", "web", "x"), ("2", "a longer one", "y\x1b")])
        listing.page([{}], [("3", "db", "z")])
    assert shown.getvalue().split("\n") == [
        "ID  NAME          LAST",
        "1   web           x",
        "2   a longer one  y\\x1b",
        "3   db            z",
        "",
    ]
    monkeypatch.setattr(sys, "stdout", shown := Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    with output.Output(as_json=False).listing(("ID", "NAME", "LAST")) as listing:
        for start in (1, 4):
            rows = [(str(n), "n" * 10 * n, "2025-03-11T19:12:36Z") for n in range(start, start + 3)]
            listing.page([{}] * 3, rows)
    lines = shown.getvalue().splitlines()
    assert len(lines) == 7
    assert max(map(len, lines)) <= 30
    assert all(line.endswith("03-11 19:12") for line in lines[1:])


def test_what_a_row_is_known_by_is_cut_on_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", shown := Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    with output.Output(as_json=False).listing(("ID", "NAME")) as listing:
        for known_by in ("1", "an-id-that-is-longer-than-those-before", "2"):
            listing.page([{}], [(known_by, "n" * 60)])
    assert [line.split()[0] for line in shown.getvalue().splitlines()] == [
        "ID",
        "1",
        "an-id-that-is-longer-than-those-before",
        "2",
    ]


def test_pages_are_filtered_one_by_one(tool: Tool, config: Config) -> None:
    async def run() -> None:
        async with open_backends(config) as backends, trio.open_nursery() as nursery:
            for number in range(1201):
                uuid = f"0194857f-39b5-7bfb-a7bc-{number:012}"
                nursery.start_soon(backends.agents.add, Agent(uuid, f"web-{number:04}", "h", version=f"6.{number % 2}"))

    trio.run(run)
    for options, names in (
        ((), range(1201)),
        (("--limit", "501"), range(501)),
        (("--version", "6.1", "--limit", "600"), range(1, 1200, 2)),
        (("--reverse", "--limit", "2"), (1200, 1199)),
        (("--name", "web-12*"), (1200,)),
        (("--name", "db-*"), ()),
    ):
        found = json.loads(tool("--json", "agents", "list", *options).out)
        assert [agent["name"] for agent in found] == [f"web-{number:04}" for number in names]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("web-1", 5),
        ("日本語", 6),
        ("\N{FOX FACE}-web", 6),
        ("e\N{COMBINING ACUTE ACCENT}", 1),
        (unicodedata.normalize("NFD", "한국"), 4),  # as macOS may name a host
    ],
)
def test_columns_that_a_name_takes(text: str, columns: int) -> None:
    assert output.text_width(text) == columns
    assert output.padded(text, 9) == text + " " * (9 - columns)
    assert output.cut(text, columns) == text
    for width in range(1, columns):
        short = output.cut(text, width)
        assert short.endswith("…")
        assert width - 1 <= output.text_width(short) <= width


def test_dates_arent_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: 60)
    rows = [("0194857f-39b5-7bfb-a7bc-c5c6835f03d1", "n" * 50, "2026-03-11T19:12:36Z"), ("b", "c", None)]
    shown = output.table(("UUID", "NAME", "LAST SEEN"), rows).split("\n")
    assert [line.split()[-2:] for line in shown] == [["LAST", "SEEN"], ["03-11", "19:12"], ["c", "-"]]
    assert shown[1].split()[1] == "n" * 8 + "\N{HORIZONTAL ELLIPSIS}"


def test_names_of_wide_characters_dont_shift_a_table(tool: Tool) -> None:
    for name in ("web-1", "日本語サーバー", "\N{FOX FACE}"):
        assert tool("agents", "add", name).status == 0
    rows = tool("agents", "list").lines
    assert (
        len({output.text_width(row[: row.index(word)]) for row in rows for word in ("STATUS", "never") if word in row})
        == 1
    )
