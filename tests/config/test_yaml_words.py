"""What YAML 1.1 makes something else of than stands there: each is refused with a sentence, or stays what it is."""

from __future__ import annotations

import string
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.problems import ConfigError
from wazuh_comms_trio.config.show import as_yaml
from wazuh_comms_trio.config.source import parse

LEAST = "communications_api:\n  backend: embedded\n  ssl: {key: k.pem, cert: c.pem}\n"
ZERO = "write it without the zero"
UNDERSCORES = "write it without them"
DECIMAL = "write it in decimal"
TAG = "has a tag (`!...`), which isn't taken here"
QUOTES = "text stands in quotes"


def refusals(lines: str) -> list[tuple[str, int | None, str]]:
    text = LEAST + "".join(f"  {line}\n" for line in dedent(lines).splitlines())
    with pytest.raises(ConfigError) as caught:
        load_config(Path("/etc/server.yml"), check_files=False, text=text)
    return [
        (problem.path.removeprefix("communications_api."), problem.line, problem.text)
        for problem in caught.value.problems
    ]


@pytest.mark.parametrize(
    ("line", "path", "said"),
    [
        ("port: 027000", "port", ZERO),  # 11776
        ("port: +027", "port", ZERO),
        ("port: 00", "port", ZERO),
        ("port: 08080", "port", ZERO),  # no number to YAML 1.1
        ("port: 0_27", "port", UNDERSCORES),
        ("port: 27_000", "port", UNDERSCORES),
        ("port: 7:30", "port", DECIMAL),  # 450
        ("port: 0x6978", "port", DECIMAL),
        ("port: 0b11", "port", DECIMAL),
        ("port: 0o17", "port", "is not accepted"),  # YAML 1.2's; to ours text
        ("port: !!int 27000", "port", TAG),
        ('port: !!int "27000"', "port", TAG),
        ("port: !!int 0o17", "port", TAG),
        ("port: ! 27000", "port", TAG),
        ("!!str port: 27000", "port", TAG),
        ("quarantine: {max_bytes: 010000000}", "quarantine.max_bytes", ZERO),
        ("quarantine: !!map {max_bytes: 1}", "quarantine", TAG),
        ("host: !!seq [127.0.0.1]", "host", TAG),
        ("host: !!set {127.0.0.1}", "host", TAG),
        ("host: [127.0.0.1, !!str 127.0.0.2]", "host[1]", TAG),
        ("timeouts: {commands: 0300}", "timeouts.commands", ZERO),
        ("timeouts: {commands: 00.5}", "timeouts.commands", ZERO),
        ("timeouts: {commands: 03e2}", "timeouts.commands", ZERO),
        ("timeouts: {commands: 1_0.5}", "timeouts.commands", UNDERSCORES),
        ("timeouts: {commands: 5:00}", "timeouts.commands", DECIMAL),
        ("timeouts: {commands: 5:00.5}", "timeouts.commands", DECIMAL),
        ("timeouts: {commands: 2024-01-02}", "timeouts.commands", "is a date"),
        ("files: {path: 2024-01-02}", "files.path", "is a date"),
        ("files: {path: 0755}", "files.path", ZERO),
        ("files: {scope: on}", "files.scope", "on (to YAML the same as true; text stands in quotes) is not accepted"),
        ("host: no", "host[0]", "no (to YAML the same as false; text stands in quotes) is not accepted"),
        ("host: [127.0.0.1, Off]", "host[1]", "Off (to YAML the same as false"),
        ("workers: Yes", "workers", "Yes (to YAML the same as true"),
        ("workers: true", "workers", "true is not accepted"),
        ("ssl: {key: k, cert: c, keyfile_password: 0123}", "ssl.keyfile_password", QUOTES),
    ],
)
def test_what_becomes_something_else_is_refused(line: str, path: str, said: str) -> None:
    # The last stands for a key that is there already.
    found = [item for item in refusals(line) if "second time" not in item[2]]
    assert [(where, at) for where, at, _ in found] == [(path, 4)]
    assert said in found[0][2]


def test_a_secret_is_in_no_sentence() -> None:
    text = "indexer: {username: a, password: 01234567}\nx: 1\n"
    with pytest.raises(ConfigError) as caught:
        load_config(Path("/etc/server.yml"), check_files=False, text=LEAST + text)
    assert ZERO in str(caught.value)
    assert "1234567" not in str(caught.value)


def test_what_stays_what_it_is() -> None:
    text = LEAST + dedent(
        """\
          port: 27000
          timeouts: {commands: 0.5, files: .5, stateful: 1e2, stateless: +5, scan: 5.}
          shutdown: {spread: 0}
          batcher: {eager: off}
        indexer: {username: "0755", password: 'no'}
        server: {mode: !!int 0755, when: 2024-01-02, port: 027000}
        """
    )
    loaded = load_config(Path("/etc/server.yml"), check_files=False, text=text)
    api = loaded.config.communications_api
    assert api.port == 27000
    times = api.timeouts
    assert (times.commands, times.files, times.stateful, times.stateless, times.scan) == (0.5, 0.5, 100, 5, 5)
    assert (api.shutdown.spread, api.batcher.eager) == (0, False)
    assert (loaded.config.indexer.username, loaded.config.indexer.password) == ("0755", "no")


@given(st.text(string.digits + "+-_.:eExXbBoOaf", min_size=1, max_size=8))
def test_whatever_is_taken_for_a_number_is_the_number_that_it_looks_like(word: str) -> None:
    """Python's own reading, which knows no octal without a letter, is what it looks like."""
    source = parse(f"a: [{word}]\n", ["a"])
    if source.problems:
        return
    (value,) = source.data["a"] or [None]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        assert "_" not in word
        assert value == float(word) or word.lower().endswith(("inf", "nan"))
    else:
        assert value == word or value is None or isinstance(value, dict) or word.lower() == "off"


@pytest.mark.parametrize("word", ["1e3", "no", "0755", "1:30", "2024-01-02", "1_000", "~", "0x1", ".inf", "="])
def test_what_is_shown_reads_as_the_same(word: str) -> None:
    text = LEAST + f"indexer: {{username: '{word}'}}\n"
    config = load_config(Path("/etc/server.yml"), check_files=False, text=text).config
    assert config.indexer.username == word
    again = load_config(Path("/etc/server.yml"), check_files=False, text=as_yaml(config)).config
    assert again.indexer.username == word
