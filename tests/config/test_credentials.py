"""systemd's credentials stand in for what the file says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.conftest import Certificates
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.problems import ConfigError


@pytest.fixture
def file(tmp_path: Path, certificates: Certificates) -> Path:
    """A configuration with keys that this user can't read: they aren't there."""
    path = tmp_path / "wazuh-server.yml"
    ssl = {"key": "/nowhere/key.pem", "cert": "/nowhere/cert.pem", "keyfile_password": "of the file"}
    path.write_text(yaml.safe_dump({"communications_api": {"ssl": ssl, "backend": "embedded"}}))
    return path


def test_they_win_over_the_configured_paths(
    file: Path, tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "ssl.key").write_bytes(certificates.key.read_bytes())
    (folder / "ssl.key").chmod(0o400)
    (folder / "ssl.cert").write_bytes(certificates.cert.read_bytes())
    (folder / "ssl.keyfile_password").write_text("of the credential\nand not this")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    loaded = load_config(file)
    ssl = loaded.config.communications_api.ssl
    assert (ssl.key, ssl.cert, ssl.ca) == (folder / "ssl.key", folder / "ssl.cert", None)
    assert ssl.keyfile_password == "of the credential"  # noqa: S105
    assert loaded.config.communications_api.token.private_key is None


def test_without_them_the_file_counts(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert {problem.path for problem in caught.value.problems} == {
        "communications_api.ssl.key",
        "communications_api.ssl.cert",
    }
