"""Copies of the package, as an installation of another version would be: the tests' own, to be replaced and removed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import wazuh_comms_trio

PACKAGE: Final = Path(wazuh_comms_trio.__file__).parent

_GIT: Final = ("git", "-C", os.fspath(PACKAGE.parent))

#: A file, what stands there once, and what stands there instead.
REPORTS_LATER: Final = (
    "daemon/status.py",
    "    pid: int | None = None",
    "    pid: int | None = None\n    later: bool = True",
)

#: What a later version of the same major may have: a word more in every message of a link, messages that the other
#: side doesn't know, something new in the status, another version of each database, with a column more in every table,
#: and something new in documents.
LATER: Final = (
    (
        "daemon/supervisor/messages.py",
        "msgspec.json.encode(message)",
        'msgspec.json.encode({**encode(message), "later": [1]})',
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
    REPORTS_LATER,
    (
        "backends/embedded/state_schema.py",
        "Migration(_VERSION_7, usable_since=1),\n    ]",
        "Migration(_VERSION_7, usable_since=1), Migration('ALTER TABLE agents ADD later TEXT;"
        "ALTER TABLE documents ADD later TEXT; ALTER TABLE commands ADD later TEXT', usable_since=1)]",
    ),
    (
        "quarantine/schema.py",
        "Migration(_VERSION_3, usable_since=1),\n    ]",
        "Migration(_VERSION_3, usable_since=1), Migration('ALTER TABLE entries ADD later TEXT', usable_since=1)]",
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


#: The last commit before the modules moved to the folders of their subjects. Its programs work with this tree's.
BEFORE_THE_MOVE: Final = "601261582288f3e43b6eca9e73781b1f5b8892cd"


def has_commit(commit: str) -> bool:
    """An exported tree has none, a shallow clone only the last ones."""
    with suppress(FileNotFoundError):  # git
        return subprocess.run([*_GIT, "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True).returncode == 0
    return False


def install(
    site: Path, *, later: bool = False, reports_later: bool = False, commit: str | None = None
) -> dict[str, str]:
    """Puts a copy into the folder, in place of what is there, at once as far as a file system lets us: of this tree, or
    of a ``commit``. ``later``: with the changes above; ``reports_later``: only with a word more in the status. The
    environment in which programs run with it."""
    new, old = site / "new", site / "old"
    if commit is None:
        shutil.copytree(PACKAGE, new / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        new.mkdir()
        archive = subprocess.run([*_GIT, "archive", commit, PACKAGE.name], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(new, filter="data")
    for name, before, after in LATER if later else [REPORTS_LATER] if reports_later else []:
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
