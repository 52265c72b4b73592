"""The folder of group files: what agents no longer ask for is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from wazuh_comms_trio.config.group_files import check_group_files, only_old
from wazuh_comms_trio.config.models import CommunicationsApi, Config, Files, Ssl
from wazuh_comms_trio.config.reader import Reader
from wazuh_comms_trio.config.source import parse


def warnings_of(folder: Path) -> list[str]:
    reader = Reader(parse("communications_api: {}\n", ["communications_api"]))
    ssl = Ssl(folder / "key.pem", folder / "cert.pem")
    check_group_files(reader, Config(CommunicationsApi(ssl=ssl, files=Files(path=folder))))
    return [warning.text for warning in reader.warnings]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        ([], []),
        (["web.yml", "web.conf", "other.txt", ".conf"], []),
        (["web.conf"], ["web"]),
        (["web.conf", "db.conf", "a.b.conf", "a.yml", "db.yml"], ["a.b", "web"]),
    ],
)
def test_groups_with_the_old_file_alone(tmp_path: Path, names: list[str], groups: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "folder.conf").mkdir()
    assert only_old(tmp_path) == groups


def test_what_is_said(tmp_path: Path) -> None:
    assert warnings_of(tmp_path / "missing") == []
    (tmp_path / "web.conf").touch()
    (warning,) = warnings_of(tmp_path)
    assert warning.startswith(f"{tmp_path} has web.conf alone: agents ask for <group>.yml")
    assert warning.endswith("add web.yml")
    for number in range(6):
        (tmp_path / f"g{number}.conf").touch()
    (warning,) = warnings_of(tmp_path)
    assert "g0.conf, g1.conf, g2.conf, g3.conf, g4.conf and 2 more alone" in warning
