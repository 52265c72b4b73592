"""Loading a configuration from a text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wazuh_comms_trio.config.load import LoadedConfig
from wazuh_comms_trio.config.problems import ConfigError

Load = Callable[..., LoadedConfig]
LEAST = "communications_api:\n  backend: embedded\n  ssl: {key: k.pem, cert: c.pem}\n"


def problems_of(load_text: Load, text: str | bytes) -> list[tuple[str, int | None, str]]:
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    return [
        (problem.path.removeprefix("communications_api."), problem.line, problem.text)
        for problem in caught.value.problems
    ]
