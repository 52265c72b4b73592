"""A model of wazuh-db: agents, groups and packages in memory, asked in its own language (DAEMONS.md, "Replies",
wazuh-db; SOCKETS.md, 5).

What it knows is what the transport library talks about: paging (``global get-all-agents last_id N`` and its kin), row
streaming (``agent N package get``), ``sql`` on the two databases, group assignment, and the JSON commands. What else
it is to answer, as its actors ``mitre``, ``task`` and ``wazuhdb``, a test says; the rest is an ``err``, as there.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from attrs import define, field

from wazuh_comms_trio.testing.daemons.conduct import Answer, Frames

#: The columns of the agent table that the model keeps; a row leaves out its NULLs.
AGENT_COLUMNS: Final = (
    "id",
    "name",
    "ip",
    "register_ip",
    "os_name",
    "version",
    "node_name",
    "connection_status",
    "sync_status",
    "last_keepalive",
)


#: What a request in text may begin with (SOCKETS.md, 5); in 5.0 it is fewer.
ACTORS: Final = ("agent", "global", "mitre", "task", "wazuhdb")


class Refused(Exception):
    """The text after ``err``."""


def encode_rows(rows: Sequence[Any]) -> str:
    """JSON as wazuh-db writes it: no spaces, NULL columns left out."""
    present = [
        {key: value for key, value in row.items() if value is not None} if isinstance(row, Mapping) else row
        for row in rows
    ]
    return json.dumps(present, separators=(",", ":"), ensure_ascii=False)


@define
class WazuhDBModel:
    """The callback to give to ``open_fake_daemon("wazuh-db", model)``.

    ``agents`` is id -> row, ``groups`` group name -> ids, ``packages`` agent id -> rows; an agent that isn't there was
    never synchronized. ``configurations`` are its own sections. ``page_rows`` rows are one page. ``commands`` is what
    else it answers: a text request as a whole -> its answer.
    """

    agents: dict[int, dict[str, Any]] = field(factory=dict)
    groups: dict[str, set[int]] = field(factory=lambda: {"default": set()})
    packages: dict[int, list[dict[str, Any]]] = field(factory=dict)
    page_rows: int = 100
    configurations: dict[str, Mapping[str, Any]] = field(
        factory=lambda: {"wdb": {"wazuh-db": {"worker_pool_size": 8}}, "internal": {"wazuh_db": {"debug": 0}}}
    )
    commands: dict[str, Answer] = field(factory=dict)

    def add_agent(self, number: int, name: str, *, groups: Sequence[str] = ("default",), **columns: Any) -> None:
        """Enrol an agent; ``columns`` are more of its row, None for NULL."""
        row: dict[str, Any] = dict.fromkeys(AGENT_COLUMNS)
        row |= {
            "id": number,
            "name": name,
            "ip": "any",
            "connection_status": "active",
            "sync_status": "synced",
            **columns,
        }
        self.agents[number] = row
        for group in groups:
            self.groups.setdefault(group, set()).add(number)

    def groups_of(self, number: int) -> list[str]:
        """The names of an agent's groups, sorted."""
        return sorted(name for name, members in self.groups.items() if number in members)

    def __call__(self, request: bytes) -> Answer:
        """One request's answer. A query that ends in a newline gets its answer with one; blanks and newlines in front
        are skipped."""
        text = request.decode(errors="replace")
        if text.lstrip().startswith("{"):
            return self._json(text)
        answer = self._text(text.lstrip(" \n").rstrip("\n"))
        return answer + "\n" if text.endswith("\n") and isinstance(answer, str) else answer

    # --- requests as JSON ---------------------------------------------------------------------------------------------

    def _json(self, text: str) -> Answer:
        """Numbers of its errors: SOCKETS.md, 5."""
        try:
            message = json.loads(text)
        except ValueError:
            return self._json_failure(1, "Invalid JSON input")
        command, parameters = message.get("command"), message.get("parameters")
        if not isinstance(command, str):
            return self._json_failure(2, "Empty command")
        if command == "getstats":
            metrics = {"queries": {"received": 0}}
            return {"error": 0, "message": "ok", "data": {"name": "wazuh-db", "metrics": metrics}}
        if command != "getconfig":
            return self._json_failure(3, "Unknown command")
        if not isinstance(parameters, dict):
            return self._json_failure(4, "Empty parameters")
        section = parameters.get("section")
        if not isinstance(section, str):
            return self._json_failure(5, "Empty section")
        if (found := self.configurations.get(section)) is None:
            return self._json_failure(6, "Unrecognized section")
        return {"error": 0, "message": "ok", "data": dict(found)}

    def _json_failure(self, code: int, reason: str) -> Answer:
        return {"error": code, "message": reason, "data": {}}

    # --- requests as text ---------------------------------------------------------------------------------------------

    def _text(self, text: str) -> Answer:
        if (told := self.commands.get(text)) is not None:
            return told
        actor, _, rest = text.partition(" ")
        try:
            match actor:
                case "global":
                    command, _, arguments = rest.partition(" ")
                    if (handler := self._commands().get(command)) is None:
                        raise Refused(f"Invalid DB query syntax, near '{command}'")
                    return handler(arguments)
                case "agent":
                    return self._agent(rest)
                case _ if actor in ACTORS:
                    raise Refused(f"Invalid DB query syntax, near '{rest[:32]}'")
                case _:
                    raise Refused(f"Invalid DB query actor: {actor}")
        except Refused as error:
            return f"err {error}"

    def _commands(self) -> Mapping[str, Callable[[str], Answer]]:
        return {
            "get-all-agents": self._all_agents,
            "get-group-agents": self._group_agents,
            "get-agents-by-connection-status": self._by_status,
            "sync-agent-info-get": self._sync_info,
            "get-agent-info": self._agent_info,
            "insert-agent-group": self._insert_group,
            "find-group": self._find_group,
            "set-agent-groups": self._set_groups,
            "sql": self._sql,
        }

    def _page(
        self, items: Sequence[tuple[int, Any]], last_id: int, wrap: Callable[[list[Any]], list[Any]] = list
    ) -> Answer:
        later = [(number, item) for number, item in sorted(items, key=lambda pair: pair[0]) if number > last_id]
        rows = wrap([item for _, item in later[: self.page_rows]])
        return f"{'due' if len(later) > self.page_rows else 'ok'} {encode_rows(rows)}"

    def _all_agents(self, arguments: str) -> Answer:
        if (match := re.fullmatch(r"last_id (\d+)", arguments)) is None:
            raise Refused(f"Invalid arguments '{arguments}'")
        return self._page([(number, {"id": number}) for number in self.agents], int(match[1]))

    def _group_agents(self, arguments: str) -> Answer:
        if (match := re.fullmatch(r"(\S+) last_id (\d+)", arguments)) is None:
            raise Refused(f"Invalid arguments '{arguments}'")
        return self._page([(number, number) for number in self.groups.get(match[1], ())], int(match[2]))

    def _by_status(self, arguments: str) -> Answer:
        if (match := re.fullmatch(r"(\d+) (\S+)", arguments)) is None:
            raise Refused(f"Invalid arguments '{arguments}'")
        found = [
            (number, {"id": number}) for number, row in self.agents.items() if row["connection_status"] == match[2]
        ]
        return self._page(found, int(match[1]))

    def _sync_info(self, arguments: str) -> Answer:
        match = re.fullmatch(r"last_id (\d+)", arguments)
        rows = [(number, {k: v for k, v in row.items() if v is not None}) for number, row in self.agents.items()]
        return self._page(rows, int(match[1]) if match else 0, lambda page: [{"data": page}])

    def _agent_info(self, arguments: str) -> Answer:
        """Takes a bare number; anything else, JSON too, is read as 0."""
        if not arguments:
            raise Refused("Invalid DB query syntax, near 'get-agent-info'")
        digits = re.match(r"\d*", arguments)
        number = int(digits[0] or 0) if digits else 0
        row = self.agents.get(number)
        return "ok " + encode_rows([row | {"group": ",".join(self.groups_of(number))}] if row else [])

    def _insert_group(self, name: str) -> Answer:
        self.groups.setdefault(name, set())
        return "ok"

    def _find_group(self, name: str) -> Answer:
        return "ok " + encode_rows([{"id": sorted(self.groups).index(name) + 1}] if name in self.groups else [])

    def _set_groups(self, arguments: str) -> Answer:
        try:
            wanted = json.loads(arguments)
            mode, changes = wanted["mode"], [(one["id"], set(one["groups"])) for one in wanted["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"Invalid JSON data, near '{arguments[:32]}'") from error
        if mode not in ("append", "override", "remove", "empty_only"):
            raise Refused(f"Invalid mode '{mode}'")
        for number, names in changes:
            if number not in self.agents:
                raise Refused("An error occurred during the set of the groups")
            now = set(self.groups_of(number))
            if mode == "empty_only" and now:
                continue
            after = {"append": now | names, "remove": now - names}.get(mode, names)
            for name in now | after:
                members = self.groups.setdefault(name, set())
                (members.add if name in after else members.discard)(number)
        return "ok"

    def _agent(self, rest: str) -> Answer:
        match = re.fullmatch(r"(\d+) (\S+) ?(.*)", rest, re.DOTALL)
        if match is None or int(match[1]) not in self.agents:
            raise Refused(f"Invalid agent ID '{rest.split(' ', 1)[0]}'")
        synchronized = int(match[1]) in self.packages
        rows = self.packages.get(int(match[1]), [])
        match (match[2], match[3]):
            case ("package", "get") if not synchronized:
                return Frames(['ok {"status":"NOT_SYNCED"}'], streamed=True)
            case ("package", "get"):
                # The last frame is no row.
                due = [f"due {encode_rows([row])[1:-1]}" for row in rows]
                return Frames([*due, 'ok {"status":"SUCCESS"}'], streamed=True)
            case ("sql", query):
                return self._run_sql(query, {"sys_programs": rows})
            case (command, _):
                raise Refused(f"Invalid DB query syntax, near '{command}'")

    def _sql(self, query: str) -> Answer:
        return self._run_sql(query, {"agent": [self.agents[number] for number in sorted(self.agents)]})

    def _run_sql(self, query: str, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Answer:
        with closing(sqlite3.connect(":memory:")) as database:
            for table, rows in tables.items():
                columns = list(dict.fromkeys(key for row in rows for key in row)) or ["id"]
                database.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
                marks = ", ".join("?" * len(columns))
                database.executemany(
                    f"INSERT INTO {table} VALUES ({marks})", [[row.get(key) for key in columns] for row in rows]
                )
            try:
                cursor = database.execute(query)
                names = [column[0] for column in cursor.description or ()]
                return "ok " + encode_rows([dict(zip(names, row, strict=True)) for row in cursor])
            except sqlite3.Error as error:
                raise Refused(f"Cannot execute SQL query; err database: {error}") from error
