"""Configuration files: one that is taken is shown as YAML that says the same; any other is refused with its problems
and none of its values."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.fuzz.target import Target
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.problems import ConfigError
from wazuh_comms_trio.config.show import as_data, as_yaml
from wazuh_comms_trio.config.source import parse

__all__ = ["TARGETS"]

FILE = Path("/nowhere/wazuh-server.yml")
SECRET = "s3cr3t-p4ssw0rd"  # noqa: S105  # what mustn't be seen

#: Of what was shown as YAML and read again: most files that are taken say one of a few things, and this takes longest.
SHOWN: set[int] = set()


def check(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    source = parse(text, ("communications_api", "indexer", "engine"))
    for problem in source.problems:
        assert SECRET not in problem.text
    try:
        loaded = load_config(FILE, check_files=False, credentials=False, text=text)
    except ConfigError as error:
        assert error.problems
        assert all(problem.text for problem in error.problems)
        assert SECRET not in str(error) or SECRET in "".join(problem.path for problem in error.problems)
        return
    # composed, not loaded: what other programs' sections say isn't ours, their tags neither
    assert isinstance(yaml.compose(text, Loader=yaml.SafeLoader), yaml.MappingNode)
    says = hash(repr(as_data(loaded.config)))
    if says not in SHOWN:
        shown = as_yaml(loaded.config)
        again = load_config(FILE, check_files=False, credentials=False, text=shown)
        assert as_yaml(again.config) == shown
        SHOWN.add(says)


_LEAST = b"communications_api:\n  backend: embedded\n  ssl:\n    key: k.pem\n    cert: c.pem\n"
CONFIGURATION = Target(
    check,
    (
        _LEAST,
        _LEAST + b"  port: 27001\n  limits:\n    body_bytes: 1048576\n  embedded:\n    path: /var/lib/x\n",
        b"x: &a {key: k, cert: c}\ncommunications_api:\n  ssl:\n    <<: *a\n  workers: 2\nindexer:\n  password: "
        + SECRET.encode()
        + b"\n  hosts: ['https://a:9200']\n  username: u\n",
        b"communications_api: {ssl: {key: k, cert: c}, backend: embedded, port: 0x10, host: yes}\n",
        b"a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ncommunications_api: *c\n",
        b"%YAML 1.1\n---\ncommunications_api: !!python/object/apply:os.system [x]\n...\n",
        b"communications_api:\n  ssl: {key: k, cert: c}\n  host: 2024-13-01\n  port: 1:30\n",
    ),
    (
        b"<<: *a",
        b"&a ",
        b"*a",
        b"!!int ",
        b"!!binary ",
        b"? ",
        b"- ",
        b": ",
        b"|\n",
        b"\t",
        b"'",
        b'"',
        b"=",
        b"~",
        b".inf",
        b"\xef\xbf\xbe",
        b"[" * 200,
        b"2001-01-01",
        b"0o7",
        b"1e3",
        b"{{",
        b"%",
        b"@",
        b"9" * 4400,
    ),
    longest=2000,
    cases=60,
)

TARGETS = {"configuration": CONFIGURATION}
