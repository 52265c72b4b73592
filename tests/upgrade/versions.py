"""Copies of the package, as an installation of another version would be: the tests' own, to be replaced and removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import wazuh_comms_trio

PACKAGE: Final = Path(wazuh_comms_trio.__file__).parent

#: What a later version of the same major may have: a word more in every message of a link, messages that the other
#: side doesn't know, something new in the status, another version of each database, with a column more in every table,
#: and something new in documents. A file, what stands there once, and what stands there instead.
LATER: Final = (
    (
        "daemon/supervisor/link.py",
        "json.dumps(encode(message))",
        'json.dumps({**encode(message), "later": [1]})',
    ),
    (
        "daemon/worker/process.py",
        "link.send_nowait(messages.Ready(",
        "link.send_nowait(messages.Later(since=[2])); link.send_nowait(messages.Ready(",
    ),
    (
        "daemon/supervisor/messages.py",
        "# --- their JSON",
        "class Later(Message, frozen=True, kw_only=True, tag='later'):\n    since: list[int]\n\n\n# --- their JSON",
    ),
    ("daemon/status.py", "    pid: int | None = None", "    pid: int | None = None\n    later: bool = True"),
    (
        "backends/embedded/state_schema.py",
        "[Migration(_VERSION_1, usable_since=1)]",
        "[Migration(_VERSION_1, usable_since=1), Migration('ALTER TABLE agents ADD later TEXT;"
        "ALTER TABLE documents ADD later TEXT; ALTER TABLE commands ADD later TEXT', usable_since=1)]",
    ),
    (
        "quarantine/store.py",
        "[Migration(_VERSION_1, usable_since=1)]",
        "[Migration(_VERSION_1, usable_since=1), Migration('ALTER TABLE entries ADD later TEXT', usable_since=1)]",
    ),
    (
        "backends/opensearch/commands/documents.py",
        "    if token is not None:\n        document[",
        "    document['later'] = {'n': 1}\n    if token is not None:\n        document[",
    ),
    (
        "backends/opensearch/agents/registry.py",
        "encode_json(to_document(agent))",
        "encode_json({**to_document(agent), 'later': {'n': 1}})",
    ),
)


def install(site: Path, *, later: bool = False) -> dict[str, str]:
    """Puts a copy into the folder, in place of what is there, at once as far as a file system lets us. The environment
    in which programs run with it."""
    new, old = site / "new", site / "old"
    shutil.copytree(PACKAGE, new / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    if later:
        for name, before, after in LATER:
            change(new / PACKAGE.name / name, before, after)
    if (site / PACKAGE.name).exists():
        old.mkdir()
        (site / PACKAGE.name).rename(old / PACKAGE.name)
    (new / PACKAGE.name).rename(site / PACKAGE.name)
    new.rmdir()
    shutil.rmtree(old, ignore_errors=True)
    return {"PYTHONPATH": os.fspath(site)}


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert text.count(before) == 1, f"{file.name} isn't as the test knows it: {before}"
    file.write_text(text.replace(before, after))
