"""The table of state modules is the one place: a row added to it is seen everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from wazuh_comms_trio.backends.opensearch.templates import templates
from wazuh_comms_trio.backends.state_modules import (
    STATE_INDICES,
    STATE_MODULES,
    STATE_PATTERN,
    StateModule,
    markdown_table,
)
from wazuh_comms_trio.services.stateful.event_header import PLAIN_FORMS, Header, index_of, needs_collector

ROOT = Path(__file__).parents[2]

#: Runs in a process of its own: what the table is made into is made when modules are imported.
ADDING = """
import json
import attrs
import trio
import wazuh_comms_trio.backends.state_modules as table

rows = (
    table.StateModule("browser", None, "wazuh-states-browsers"),
    table.StateModule("inventory", "pets", "wazuh-states-inventory-pets", "wazuh-comms-pets"),
)
source = open(table.__file__).read().replace(
    "\\n)\\n\\n#: Their indices",
    "".join(f"\\n    StateModule{attrs.astuple(row)!r}," for row in rows) + "\\n)\\n\\n#: Their indices",
)
exec(compile(source, table.__file__, "exec"), table.__dict__)

from tests.indexer.bench import client_of, fakes
from wazuh_comms_trio.backends.opensearch.admin.check import check_indexer
from wazuh_comms_trio.backends.opensearch.admin.init import init_indexer
from wazuh_comms_trio.backends.opensearch.templates import templates
from wazuh_comms_trio.config.backend_models import Indexer, IndexerHost, IndexerNames
from wazuh_comms_trio.services.metadata import read_metadata
from wazuh_comms_trio.services.stateful.event_header import PLAIN_FORMS, index_of, read_header


async def made():
    async with fakes("a") as nodes, client_of(nodes) as client:
        return [step.name for step in await init_indexer(client, IndexerNames())]


async def missing():
    async with fakes("a") as nodes:
        settings = Indexer(hosts=(IndexerHost("a"),))
        return [each.text async for each in check_indexer(settings, connect=nodes["a"].connect)]


print(json.dumps({
    "rows": len(table.STATE_MODULES),
    "headers": [
        index_of(read_header(b'{"id":"1","module":"browser","operation":"create"}')),
        index_of(read_header(b'{"id":"1","module":"inventory","collector":"pets","operation":"create"}')),
    ],
    "plain": [
        PLAIN_FORMS[("browser", None, "create", False)][0],
        PLAIN_FORMS[("inventory", "pets", "delete", True)][0],
    ],
    "templates": {name: body["index_patterns"] for name, body in templates("a", "c").items()},
    "made": trio.run(made),
    "checked": trio.run(missing),
    "docs": table.markdown_table(),
}))
"""


@pytest.mark.real_clock
def test_a_row_added_is_seen_everywhere() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ADDING], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    both = ["wazuh-states-browsers", "wazuh-states-inventory-pets"]
    assert seen["rows"] == len(STATE_MODULES) + 2
    assert seen["headers"] == both
    assert seen["plain"] == both
    assert seen["templates"]["wazuh-comms-states"] == [STATE_PATTERN]
    assert seen["templates"]["wazuh-comms-pets"] == ["wazuh-states-inventory-pets"]
    assert {*both, "wazuh-comms-pets"} <= set(seen["made"])
    assert any(f"of {len(STATE_INDICES) + 2} are" in text for text in seen["checked"])
    assert all(f"`{index}`" in seen["docs"] for index in both)


def test_headers_lead_to_every_row() -> None:
    for row in STATE_MODULES:
        header = Header(module=row.module, collector=row.collector, operation="create", id="1")
        assert index_of(header) == row.index
        assert needs_collector(row.module) == (row.collector is not None)
        text = {"id": "", "module": row.module, "collector": row.collector, "operation": "delete"}
        bare = json.dumps({key: value for key, value in text.items() if value is not None}, separators=(",", ":"))
        assert PLAIN_FORMS[(row.module, row.collector, "delete", True)] == (row.index, "delete", len(bare))


def test_every_index_has_a_template_and_the_accounts_rights() -> None:
    made = templates("agents", "commands")
    for row in STATE_MODULES:
        assert row.template in made
        patterns = made[row.template]["index_patterns"]
        assert any(fnmatchcase(row.index, pattern) for pattern in patterns)
    rights = (ROOT / "docs" / "indexer.md").read_text().partition("<!-- roles.yml -->")[2]
    assert STATE_PATTERN in rights


def test_no_row_stands_twice() -> None:
    assert len({(row.module, row.collector) for row in STATE_MODULES}) == len(STATE_MODULES)


def test_an_index_that_nobody_has_rights_on_is_refused() -> None:
    with pytest.raises(ValueError, match="the index elsewhere isn't one of"):
        StateModule("new", None, "elsewhere")


def test_the_documentation_has_the_table() -> None:
    assert markdown_table() in (ROOT / "docs" / "indexer.md").read_text()
