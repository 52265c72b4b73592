"""``wazuh-comms backup`` and ``restore``."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import LEAST, Tool
from wazuh_comms_trio.backends.embedded.state_lock import hold_state

Audit = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere" / "comms.backup"


@pytest.fixture
def backed_up(tool: Tool, archive: Path) -> Path:
    """A backup of a state with one agent, ``before``; the state goes on with another, ``after``."""
    archive.parent.mkdir()
    tool("agents", "add", "before")
    made = tool("backup", str(archive))
    assert made.status == 0, made.err
    tool("agents", "add", "after")
    return archive


def names(tool: Tool) -> list[str]:
    return [agent["name"] for agent in tool("agents", "list", "--json").document]


def test_backup_is_one_private_file(tool: Tool, archive: Path) -> None:
    archive.parent.mkdir()
    tool("agents", "add", "one")
    made = tool("backup", str(archive), "--json")
    assert made.document["file"] == str(archive)
    assert "state.db" in {file["name"] for file in made.document["files"]}
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert list(archive.parent.iterdir()) == [archive]


def test_restore_replaces_the_state_and_keeps_what_was_there(
    tool: Tool, backed_up: Path, state: Path, audit: Audit
) -> None:
    restored = tool("restore", str(backed_up), "--json")
    assert restored.status == 0
    assert names(tool) == ["before"]
    entry = audit()[-1]
    assert (entry["action"], entry["object"]) == ("restore", str(backed_up))
    kept = restored.document["kept"]
    assert entry["kept"] == kept
    assert Path(kept).parent == state
    tool("restore", kept)
    assert names(tool) == ["after", "before"]


def test_restore_into_an_empty_folder(tool: Tool, backed_up: Path, config_file: Path) -> None:
    config_file.write_text(LEAST.replace("path: state", "path: other/state"))
    restored = tool("restore", str(backed_up), "--json")
    assert restored.status == 0
    assert restored.document["kept"] is None
    assert names(tool) == ["before"]


def test_restore_without_keeping(tool: Tool, backed_up: Path, state: Path) -> None:
    assert tool("restore", "--discard", str(backed_up)).status == 0
    assert names(tool) == ["before"]
    assert list(state.glob("replaced-*")) == []


def test_restore_of_a_damaged_state(tool: Tool, backed_up: Path, state: Path) -> None:
    (state / "state.db").write_bytes(b"nonsense" * 1000)
    restored = tool("restore", str(backed_up), "--json")
    assert restored.status == 0
    assert names(tool) == ["before"]
    assert (Path(restored.document["kept"]) / "state.db").read_bytes() == b"nonsense" * 1000


@pytest.mark.parametrize("database", ["whole", "damaged", "missing"])
def test_restore_keeps_every_file_that_no_backup_has(tool: Tool, backed_up: Path, state: Path, database: str) -> None:
    """Acknowledged events and payloads, damaged files that a repair kept, and files of others."""
    files = {
        "events/01750000000000-1-000001-00000000.ndjson": b"no record, in a file that was one",
        "events/01750000000000-1-000002-00000000.ndjson.damaged": b"what a repair replaced",
        "events/notes": b"of others",
        f"quarantine/payloads/{32 * 'a'}": b"a payload whose entry is gone",
    }
    for name, content in files.items():
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_bytes(content)
    if database == "damaged":
        (state / "state.db").write_bytes(b"nonsense" * 1000)
    elif database == "missing":
        (state / "state.db").unlink()
    restored = tool("restore", str(backed_up), "--json")
    assert restored.status == 0
    assert names(tool) == ["before"]
    kept = Path(restored.document["kept"])
    assert {name: (kept / name).read_bytes() for name in files} == files
    if database == "whole":
        (inner,) = kept.glob("*.backup")
        tool("restore", "--discard", str(inner))
        assert names(tool) == ["after", "before"]


@pytest.mark.parametrize("content", [None, b"", b"nonsense", "cut"])
def test_what_is_no_backup_changes_nothing(
    tool: Tool, backed_up: Path, state: Path, content: bytes | str | None
) -> None:
    if content is None:
        backed_up.unlink()
    else:
        backed_up.write_bytes(content if isinstance(content, bytes) else backed_up.read_bytes()[:20_000])
    refused = tool("restore", str(backed_up))
    assert (refused.status, refused.out) == (1, "")
    assert str(backed_up) in refused.err
    assert names(tool) == ["after", "before"]
    assert list(state.glob("replaced-*")) == []


def test_restore_while_the_state_is_in_use(tool: Tool, backed_up: Path, state: Path) -> None:
    with hold_state(state):
        refused = tool("restore", str(backed_up))
    assert refused.status == 1
    assert "uses it" in refused.err
    assert names(tool) == ["after", "before"]


def test_backup_that_cannot_be_made(tool: Tool, tmp_path: Path) -> None:
    nothing = tool("backup", str(tmp_path / "a.backup"))
    assert (nothing.status, nothing.out) == (1, "")
    tool("agents", "add", "one")
    for file in (tmp_path / "no" / "such" / "folder" / "a", tmp_path):
        refused = tool("backup", str(file))
        assert (refused.status, refused.out) == (1, "")
        assert len(refused.err.splitlines()) == 1
    assert tool("backup").status == 2
