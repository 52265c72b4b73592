"""``balancers`` and ``shutdown.delay`` in a configuration: what is taken, what is refused, and with what words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Certificates
from wazuh_comms_trio.config.load import LoadedConfig, load_config
from wazuh_comms_trio.config.problems import ConfigError


def load(folder: Path, certificates: Certificates, **keys: Any) -> LoadedConfig:
    ssl = {"key": str(certificates.key), "cert": str(certificates.cert)}
    file = folder / "server.yml"
    file.write_text(yaml.safe_dump({"communications_api": {"ssl": ssl, "backend": "embedded", **keys}}))
    return load_config(file)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.0.0.5", ("10.0.0.5",)),
        (["10.0.0.0/24", "2001:db8::/64"], ("10.0.0.0/24", "2001:db8::/64")),
        ([], ()),
        ("", ()),
    ],
)
def test_networks_and_addresses(value: object, expected: object, certificates: Certificates, tmp_path: Path) -> None:
    loaded = load(tmp_path, certificates, balancers={"proxy_protocol": value, "forwarded_for": value})
    settings = loaded.config.communications_api.balancers
    assert (settings.proxy_protocol, settings.forwarded_for) == (expected, expected)
    assert [warning for warning in loaded.warnings if "balancers" in warning.path] == []


@pytest.mark.parametrize(
    "value", ["10.0.0.1/24", "balancer.example", ["10.0.0.5", "x"], 10, ["10.0.0.0/33"], "10.0.0.5:80"]
)
@pytest.mark.parametrize("key", ["proxy_protocol", "forwarded_for"])
def test_anything_else_is_refused(key: str, value: object, certificates: Certificates, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, certificates, balancers={key: value})
    (problem,) = caught.value.problems
    assert problem.path.startswith(f"communications_api.balancers.{key}")


@pytest.mark.parametrize("value", ["0.0.0.0/0", ["10.0.0.5", "::/0"]])
def test_trusting_everybody_is_warned_about(value: object, certificates: Certificates, tmp_path: Path) -> None:
    loaded = load(tmp_path, certificates, balancers={"forwarded_for": value})
    (warning,) = [warning for warning in loaded.warnings if "balancers" in warning.path]
    assert "anybody's word" in warning.render(loaded.file)


def test_a_delay_is_no_less_than_nothing(certificates: Certificates, tmp_path: Path) -> None:
    assert load(tmp_path, certificates, shutdown={"delay": 10}).config.communications_api.shutdown.delay == 10
    with pytest.raises(ConfigError, match="delay"):
        load(tmp_path, certificates, shutdown={"delay": -1})
