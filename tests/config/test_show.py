"""The configuration as text: masked, and documented."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import attrs
import yaml

from wazuh_comms_trio.config.accepted import without_none
from wazuh_comms_trio.config.backend_models import Indexer
from wazuh_comms_trio.config.key import key_of
from wazuh_comms_trio.config.models import Config, Enrollment, Ssl
from wazuh_comms_trio.config.show import as_data, as_yaml, markdown


def test_secrets_are_masked(make_config: Callable[..., Config], certificates: Any) -> None:
    config = make_config(
        ssl=Ssl(certificates.key, certificates.cert, keyfile_password="hunter2"),  # noqa: S106
        enrollment=Enrollment(users={"bob": "hunter2"}),
    )
    config = attrs.evolve(config, indexer=Indexer(username="admin", password="hunter2"))  # noqa: S106
    text = as_yaml(config)
    assert "hunter2" not in text
    shown = yaml.safe_load(text)
    assert shown["communications_api"]["enrollment"]["users"] == {"bob": "***"}
    assert shown["communications_api"]["ssl"]["keyfile_password"] == "***"  # noqa: S105
    assert (shown["indexer"]["username"], shown["indexer"]["password"]) == ("admin", "***")
    assert shown["communications_api"]["ssl"]["key"] == str(certificates.key)
    assert shown == as_data(config)
    assert "hunter2" not in repr(config)


def test_unset_secret_is_not_masked(make_config: Callable[..., Config]) -> None:
    assert as_data(make_config())["communications_api"]["ssl"]["keyfile_password"] is None


def test_documentation_is_current() -> None:
    assert (Path(__file__).parents[2] / "docs" / "configuration.md").read_text() == markdown()


def leaves(model: type, prefix: str) -> Iterator[tuple[str, attrs.Attribute[Any]]]:
    for field in attrs.fields(model):
        kind = without_none(get_type_hints(model)[field.name])
        yield f"{prefix}{field.name}", field
        if attrs.has(kind):
            yield from leaves(kind, f"{prefix}{field.name}.")


def test_every_key_is_documented() -> None:
    text = markdown()
    for section in attrs.fields(Config):
        for path, field in leaves(get_type_hints(Config)[section.name], ""):
            assert f"`{path}`" in text
            assert len(key_of(field).help) > 3, path


def test_every_default_passes_its_own_check() -> None:
    for section in attrs.fields(Config):
        for path, field in leaves(get_type_hints(Config)[section.name], ""):
            key = key_of(field)
            if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
                assert key.accepts_number(field.default), path
