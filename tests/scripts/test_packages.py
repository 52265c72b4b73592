"""What is handed on: both Python packages built twice the same, complete; the bill of materials; the release notes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.scripts.tree import ROOT, copy_tree, lend_environment

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

pytestmark = pytest.mark.processes


def package(tree: Path, output: Path, *what: str, mask: int) -> dict[str, bytes]:
    subprocess.run(
        [tree / "scripts/package", "--output", output, *what],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        umask=mask,
        capture_output=True,
        timeout=250,
        check=True,
    )
    return {file.name: file.read_bytes() for file in output.iterdir()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree as it was when the tests began."""
    folder = tmp_path_factory.mktemp("copy") / "tree"
    copy_tree(folder)
    lend_environment(folder)
    return folder


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twice, in different circumstances."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    assert package(tree, first, "wheel", "sdist", mask=0o022) == package(tree, second, "sdist", "wheel", mask=0o077)
    return first


def test_the_sdist_has_all_that_a_service_needs(built: Path, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    for name in (
        *("CHANGELOG.md", "LICENSE", "SECURITY.md", "requirements.lock", "conf/wazuh-server.yml", "docs/systemd.md"),
        *("systemd/wazuh-comms-apid.service", "systemd/wazuh-comms-apid.socket", "scripts/lib/setup.sh"),
        *("share/man/man1/wazuh-comms.1", "packaging/deb/postinst", "wazuh_comms_trio/sbom.cdx.json"),
    ):
        assert (tree / name).stat().st_size > 0
    for program in ("install", "run", "test", "package", "lock"):
        assert os.access(tree / "scripts" / program, os.X_OK)


def test_the_wheel_has_the_bill_of_materials_and_what_the_program_reads(built: Path, tree: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        bill = json.loads(wheel.read("wazuh_comms_trio/sbom.cdx.json"))
    tracked = {path.relative_to(tree).as_posix() for path in (tree / "wazuh_comms_trio").rglob("*.py")}
    assert tracked <= names
    assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", VERSION)
    lock = (tree / "requirements.lock").read_text()
    pins = set(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", lock, re.MULTILINE))
    assert {(each["name"], each["version"]) for each in bill["components"]} == pins
    assert sum(len(each["properties"]) for each in bill["components"]) == lock.count("--hash=sha256:")


def test_the_version_is_in_one_place() -> None:
    files = ["conf", "docs", "packaging", "scripts", "systemd", "wazuh_comms_trio"]
    found = subprocess.run(
        ["grep", "-rlF", "--include=*.py", "--include=*.sh", "--include=*.md", f'"{VERSION}"', *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""


def test_the_release_notes_are_the_changelogs_section() -> None:
    notes = subprocess.run([ROOT / "scripts/release-notes"], capture_output=True, text=True, check=True).stdout
    assert notes.startswith("### ")
    assert notes.rstrip() in (ROOT / "CHANGELOG.md").read_text()
    missing = subprocess.run([ROOT / "scripts/release-notes", "99.0"], capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stdout) == (1, "")
