"""What a problem says of a value never shows a secret."""

from __future__ import annotations

import pytest

from tests.config.loading import LEAST, Load, problems_of
from wazuh_comms_trio.config.problems import ConfigError

SECRETS = (
    "ssl: {key: k, cert: c, keyfile_password: [hunter2]}",
    "ssl: hunter2",
    "ssl: {key: k, cert: c, keyfile_pasword: hunter2}",
    "enrollment: {users: {bob: hunter2}}",
    "enrollment: {users: [hunter2]}",
    "enrollment: [hunter2]",
    "ssl: {key: k, cert: c, keyfile_password: !hunter2 x}",
    "ssl: {key: k, cert: c, keyfile_password: *hunter2 }",
    "ssl: {key: k, cert: c, keyfile_password: @hunter2 }",
    "ssl: {key: k, cert: c, keyfile_password: 'hunter2}",
    "ssl: {key: k, cert: c, keyfile_password: &hunter2 &hunter2 x}",
)


@pytest.mark.parametrize("line", SECRETS)
def test_secrets_are_not_shown(load_text: Load, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text("communications_api:\n  backend: embedded\n  " + line + "\n")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize("value", ["[hunter2]", "{a: hunter2}", "12345"])
def test_password_of_the_indexer_is_not_shown(load_text: Load, value: str) -> None:
    ((path, line, text),) = problems_of(load_text, LEAST + f"indexer:\n  password: {value}\n")
    assert (path, line) == ("indexer.password", 5)
    assert "hunter2" not in text
    assert "12345" not in text
    assert "text" in text


def test_password_in_an_address_is_not_shown(load_text: Load) -> None:
    ((_, _, text),) = problems_of(load_text, LEAST + "indexer: {hosts: ['https://admin:hunter2@host:9200']}\n")
    assert "hunter2" not in text
