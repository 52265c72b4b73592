"""What agents send to real daemons, and what these have stored."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from tests.e2e.processes import PROGRAMS, Files, Running
from wazuh_comms_trio.testing import AgentClient, stateful_event

PASSWORD, WRONG = "correct horse", "wrong"


async def logged_in(daemon: Running, **options: Any) -> AgentClient:
    (agent,) = await daemon.add_agents(1, **options)
    assert (await agent.authenticate()).status == 200
    return agent


def event(number: int, **data: Any) -> bytes:
    return stateful_event(f"id{number}", "fim", "create", {"file": {"path": f"/{number}"}, **data})


def find(document: Any, name: str) -> list[Any]:
    """The values of that key, wherever they are."""
    if isinstance(document, dict):
        own = [document[name]] if name in document else []
        return own + [found for key, value in document.items() if key != name for found in find(value, name)]
    if isinstance(document, list):
        return [found for value in document for found in find(value, name)]
    return []


async def stored(files: Files) -> tuple[list[int], list[str]]:
    """What the engine and the index hold, as the tool shows it: the events' ``n``, and the ids of documents."""
    program = str(PROGRAMS / "wazuh-comms")
    done = await trio.run_process(
        [program, "--config", str(files.config), "--json", "events", "tail"], capture_stdout=True
    )
    items = [json.loads(line) for line in done.stdout.splitlines()]
    numbers = [item["data"]["n"] for item in items if item["kind"] == "stateless"]
    return sorted(numbers), sorted(item["document_id"] for item in items if item["kind"] != "stateless")


@contextmanager
def lock(files: Files) -> Iterator[None]:
    """Another program holds the database's write lock."""
    database = sqlite3.connect(files.state / "state.db", isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")
    finally:
        database.close()
