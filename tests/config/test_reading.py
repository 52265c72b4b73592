"""YAML -> models: what is taken, and what is said of what isn't."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import attrs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.config.loading import LEAST, Load, problems_of
from wazuh_comms_trio.config.backend_models import IndexerHost
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.models import CommunicationsApi, Config, Ssl
from wazuh_comms_trio.config.problems import ConfigError
from wazuh_comms_trio.config.reader import Reader
from wazuh_comms_trio.config.rules import apply_rules
from wazuh_comms_trio.config.source import parse


def with_api(lines: str) -> str:
    return LEAST + "".join(f"  {line}\n" for line in dedent(lines).strip().splitlines())


def test_least_file_has_every_default(load_text: Load, tmp_path: Path) -> None:
    loaded = load_text(LEAST)
    ssl = Ssl(tmp_path / "k.pem", tmp_path / "c.pem")
    assert loaded.config == Config(CommunicationsApi(ssl, backend="embedded"))
    assert loaded.warnings == ()


def test_typical_file_of_an_installed_server_works_unchanged(load_text: Load) -> None:
    text = """
    server: {update_check: false, logging: {level: info}}
    indexer:
      hosts: [{host: 127.0.0.1, port: 9200}]
      username: admin
      password: admin
      ssl: {use_ssl: true, key: /etc/wazuh-server/certs/server-1-key.pem,
            certificate: /etc/wazuh-server/certs/server-1.pem,
            certificate_authorities: [/etc/wazuh-server/certs/root-ca.pem]}
    communications_api:
      host: 0.0.0.0
      port: 27000
      ssl: {key: /etc/wazuh-server/certs/server-1-key.pem, cert: /etc/wazuh-server/certs/server-1.pem, use_ca: false,
            ca: /etc/wazuh-server/certs/root-ca.pem}
    management_api: {host: 0.0.0.0, port: 55000}
    """
    loaded = load_text(dedent(text))
    assert loaded.warnings == ()
    assert loaded.config.communications_api.backend == "wazuh"
    assert loaded.config.communications_api.ssl.ca == Path("/etc/wazuh-server/certs/root-ca.pem")
    assert loaded.config.indexer.hosts == (IndexerHost("127.0.0.1", 9200),)
    assert loaded.config.indexer.ssl.certificate_authorities == (Path("/etc/wazuh-server/certs/root-ca.pem"),)
    assert loaded.config.indexer.password == "admin"  # noqa: S105  # what the file says


def test_values_of_every_kind(load_text: Load, tmp_path: Path) -> None:
    api = load_text(
        with_api(
            """
            host: [127.0.0.1, "::1"]
            port: 0
            workers: 1
            logging: {level: info, format: [json]}
            batcher: {max_elements: 1000, max_size: 1, wait_time: 0, eager: no}
            embedded: {path: state, events: {on_full: delete_oldest}}
            quarantine: {path: /q}
            token: {private_key: /t.pem, revocation: 0}
            timeouts: {commands: 1e-3, files: 5}
            shutdown: {grace: 0.5}
            enrollment: {host: 127.0.0.1}
            """
        )
    ).config.communications_api
    assert api.host == ("127.0.0.1", "::1")
    assert api.port == 0
    assert (api.logging.level, api.logging.format) == ("info", "json")
    assert (api.batcher.wait_time, api.batcher.eager) == (0.0, False)
    assert isinstance(api.batcher.wait_time, float)
    assert api.embedded.path == tmp_path / "state"  # relative to the file, wherever the program was started
    assert api.embedded.events.on_full == "delete_oldest"
    assert api.quarantine.path == Path("/q")
    assert api.token.private_key == Path("/t.pem")
    assert (api.timeouts.commands, api.timeouts.files) == (0.001, 5.0)
    assert api.enrollment is not None
    assert (api.enrollment.host, api.enrollment.port) == (("127.0.0.1",), 55000)


@pytest.mark.parametrize("blank", ["", "~", "null", "' '", '""', "' \t'"])
def test_blank_is_unset(load_text: Load, blank: str) -> None:
    lines = f"port: {blank}\nworkers: {blank}\ntoken: {blank}\nenrollment: {blank}\nfiles: {{scope: {blank or '~'}}}"
    text = with_api(lines).replace("cert: c.pem", f"cert: c.pem, ca: {blank or '~'}, ssl_ciphers: {blank or '~'}")
    text += f"indexer: {{ssl: {{certificate_authorities: [{blank or '~'}], key: {blank or '~'}}}}}\n"
    loaded = load_text(text)
    api = loaded.config.communications_api
    assert attrs.evolve(api, ssl=Ssl(Path(), Path())) == CommunicationsApi(Ssl(Path(), Path()), backend="embedded")
    assert (api.ssl.ca, api.ssl.ssl_ciphers) == (None, None)
    assert loaded.config.indexer.ssl.certificate_authorities == ()


def test_blank_mandatory_key_is_missing(load_text: Load) -> None:
    found = problems_of(load_text, 'communications_api:\n  backend: embedded\n  ssl:\n    key: " "\n')
    assert [(path, line) for path, line, _ in found] == [("ssl.cert", 3), ("ssl.key", 4)]
    assert all("missing" in text for _, _, text in found)


def test_post_is_taken_for_port_with_a_warning(load_text: Load) -> None:
    loaded = load_text(with_api("post: 28000"))
    assert loaded.config.communications_api.port == 28000
    (warning,) = loaded.warnings
    assert (warning.path, warning.line) == ("communications_api.post", 4)
    assert "`port`" in warning.text


def test_post_and_port_are_an_error(load_text: Load) -> None:
    ((path, line, text),) = problems_of(load_text, with_api("port: 1\npost: 1"))
    assert (path, line) == ("post", 5)
    assert "`port`" in text


def test_wrong_post_is_reported_under_its_own_name(load_text: Load) -> None:
    ((path, line, _),) = problems_of(load_text, with_api("workers: 2\npost: 70000"))
    assert (path, line) == ("post", 5)


@pytest.mark.parametrize(
    ("line", "path", "said"),
    [
        ("port: '5'", "port", '"5" is not accepted; accepted is a whole number from 0 to 65535'),
        ("port: true", "port", "true is not accepted"),
        ("port: 65536", "port", "65536 is not accepted"),
        ("port: -1", "port", "-1 is not accepted"),
        ("port: 1.0", "port", "1.0 is not accepted"),
        ("port: [1]", "port", "a list is not accepted"),
        ("workers: 0", "workers", "a whole number from 1 to 512"),
        (
            "batcher: {max_elements: five}",
            "batcher.max_elements",
            '"five" is not accepted; accepted is a whole number of at',
        ),
        ("batcher: {wait_time: .inf}", "batcher.wait_time", "from 0 to 31536000"),
        ("batcher: {wait_time: .nan}", "batcher.wait_time", "nan is not accepted"),
        ("batcher: {wait_time: -1}", "batcher.wait_time", "a number of seconds, of at least 0"),
        ("batcher: {eager: 1}", "batcher.eager", "1 is not accepted; accepted is true or false"),
        ("batcher: {eager: 'no'}", "batcher.eager", "true or false"),
        (
            "batcher: 5",
            "batcher",
            "5 is not accepted; accepted is a section (max_elements, max_size, wait_time, eager)",
        ),
        ("timeouts: {commands: 0}", "timeouts.commands", "a number of seconds, greater than 0"),
        (
            "timeouts: {commands: 1e12}",
            "timeouts.commands",
            "a number of seconds, greater than 0 and at most 31536000",
        ),
        ("shutdown: {grace: 31536001}", "shutdown.grace", "a number of seconds, from 0 to 31536000"),
        ("limits: {body_bytes: 1.5}", "limits.body_bytes", "a whole number of bytes"),
        ("limits: {body_bytes: 99999999999999999999999}", "limits.body_bytes", f"of bytes, from 1 to {2**63 - 1}"),
        ("limits: {body_rate: 1e-320}", "limits.body_rate", "from 1 to 1e+15"),
        (f"limits: {{connections: {2**63}}}", "limits.connections", f"from 0 to {2**63 - 1}"),
        (f"batcher: {{max_elements: {'9' * 400}}}", "batcher.max_elements", f"from 1 to {2**63 - 1}"),
        (
            "limits: {routes: {scan: {agent_rate: 1e-320}}}",
            "limits.routes.scan.agent_rate",
            "1e-320 is not accepted; accepted is 0, or from 1e-06 to 1e+06 requests a second",
        ),
        (
            "logging: {level: warn}",
            "logging.level",
            'one of debug, info, warning, error, critical; did you mean "warning"?',
        ),
        ("logging: {format: []}", "logging.format", "one of plain, json"),
        ("logging: {format: [xml]}", "logging.format", "one of plain, json"),
        ("host: []", "host", "an address, or a list of addresses"),
        ("host: ['']", "host", "an address"),
        ("host: [127.0.0.1, 5]", "host[1]", "5 is not accepted; accepted is"),
        ("host: {a: b}", "host", "an address, or a list of addresses"),
        ("events: {document_id: globl}", "events.document_id", 'did you mean "global"?'),
        ("files: {path: 5}", "files.path", "5 is not accepted; accepted is a path"),
        ('files: {path: "a\\0b"}', "files.path", "a path"),
        ('files: {path: "a\\ud800b"}', "files.path", '"a\\ud800b" is not accepted; accepted is a path'),
        ('host: "a\\ud800b"', "host[0]", "is not accepted"),
        ("command_socket: /" + "s" * 107, "command_socket", "a path of at most 107 bytes"),
        ("hots: 1", "hots", 'unknown key; did you mean "host"?'),
        ("xyzzy: 1", "xyzzy", "unknown key; known here: ssl, host, port"),
        ("? [a]\n: 1", "<a list or mapping>", "unknown key"),
        ("limits: {send_timout: 1}", "limits.send_timout", 'did you mean "send_timeout"?'),
        (
            "embedded: {events: {max_file_bytes: 2, max_bytes: 1}}",
            "embedded.events.max_file_bytes",
            "at most max_bytes, 1",
        ),
        ("enrollment: {port: 27000}", "enrollment.port", "another port than communications_api.port's"),
        ("port: 1\nport: 1", "port", "stands here a second time (first in line 4)"),
        ("port: !!python/object/apply:os.system [true]", "port", "has a tag"),
        ("port: !env PORT", "port", "has a tag"),
        ("port: 2024-13-40", "port", "isn't the kind of value that it looks like"),
    ],
)
def test_what_is_not_taken(load_text: Load, line: str, path: str, said: str) -> None:
    found = problems_of(load_text, with_api(line))
    assert [item[0] for item in found] == [path]
    assert said in found[0][2]
    assert found[0][1] == (5 if "second time" in said else 4)


def test_all_problems_at_once_in_the_files_order(load_text: Load) -> None:
    text = dedent(
        """\
        indexer:
          hosts: [{port: 0}]
        communications_api:
          bacend: embedded
          backend: embedded
          workers: none
          ssl: {cert: c.pem, use_ca: yes}
          timeouts:
            commands: soon
        """
    )
    found = problems_of(load_text, text)
    assert [(line, path) for path, line, _ in found] == [
        (2, "indexer.hosts[0].host"),
        (2, "indexer.hosts[0].port"),
        (4, "bacend"),
        (6, "workers"),
        (7, "ssl.ca"),
        (7, "ssl.key"),
        (9, "timeouts.commands"),
    ]


def test_message_has_file_line_path_and_value(load_text: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(with_api("port: x"))
    file = tmp_path / "wazuh-server.yml"
    assert str(caught.value) == (
        f'{file}:4: communications_api.port: "x" is not accepted; accepted is a whole number from 0 to 65535'
    )


def test_unknown_keys_of_shared_sections_are_warnings(load_text: Load) -> None:
    loaded = load_text(
        LEAST + "indexer: {usrname: x, hosts: [{host: a, prt: 1}]}\nengine: {client: {retrys: 1}, tzdb: x}\n"
    )
    assert [(warning.path, warning.line) for warning in loaded.warnings] == [
        ("indexer.hosts[0].prt", 4),
        ("indexer.usrname", 4),
        ("engine.client.retrys", 5),
        ("engine.tzdb", 5),
    ]
    assert 'did you mean "username"?' in loaded.warnings[1].text


def test_other_sections_are_left_alone(load_text: Load) -> None:
    others = "server: !anything [1]\nmanagement_api: {port: x, port: y}\ncommunications_apis: 5\n5: 6\n[a]: b\n"
    assert load_text(LEAST + others).warnings == ()


def test_misspelt_section_while_ours_is_missing(load_text: Load) -> None:
    found = problems_of(load_text, "comunications_api:\n  port: 1\n")
    assert ("comunications_api", 1, 'unknown section; did you mean "communications_api"?') in found
    assert {"ssl.key", "ssl.cert"} < {path for path, _, _ in found}


def test_anchors_aliases_and_merges(load_text: Load) -> None:
    text = with_api("batcher: &b {max_size: 7, max_elements: 3}\nlimits: {<<: &l {head_timeout: 2}, head_bytes: 100}")
    text = "x-shared: &s {scan: 4, files: 4}\n" + text + "  timeouts: {<<: *s, files: 5}\n"
    api = load_text(text).config.communications_api
    assert (api.timeouts.scan, api.timeouts.files, api.timeouts.stateful) == (4, 5, 30)
    assert (api.limits.head_timeout, api.limits.head_bytes) == (2, 100)


def test_problem_in_a_shared_mapping_has_its_own_line(load_text: Load) -> None:
    text = "x-shared: &s\n  scan: soon\n" + with_api("timeouts:\n  <<: *s")
    ((path, line, _),) = problems_of(load_text, text)
    assert (path, line) == ("timeouts.scan", 2)


def test_a_mapping_merged_twice_is_no_duplicate(load_text: Load) -> None:
    text = (
        with_api("batcher: &b {<<: &a {max_size: 7}, max_size: 8}\nlimits: {head_bytes: 1}")
        + "indexer: {<<: {username: u}}\n"
    )
    assert load_text(text).config.communications_api.batcher.max_size == 8


def test_byte_order_mark_and_windows_lines(load_text: Load) -> None:
    assert load_text(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode()).warnings == ()


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*(field.name for field in attrs.fields(CommunicationsApi)), "key", "users", "events", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional={"communications_api": JSON_LIKE, "indexer": JSON_LIKE, "engine": JSON_LIKE}))
def test_any_data_gives_a_configuration_or_problems(data: dict[str, Any]) -> None:
    text = yaml.safe_dump(data, allow_unicode=True)
    source = parse(text, ("communications_api", "indexer", "engine"))
    assert source.problems == ()
    reader = Reader(source)
    config = reader.config()
    apply_rules(reader, config)
    assert isinstance(config, Config)
    for problem in (*reader.problems, *reader.warnings):
        assert "\n" not in problem.render("f")
        assert len(problem.text) < 600


def test_the_example_is_sound() -> None:
    loaded = load_config(Path(__file__).parents[2] / "conf" / "wazuh-server.yml", check_files=False)
    assert loaded.warnings == ()
    assert loaded.config.communications_api.backend == "wazuh"


def test_a_time_limit_that_agents_do_not_wait_for(load_text: Load) -> None:
    """They give up after 60 s and send it again, which a longer limit only makes more of. Polls they wait for."""
    assert load_text(with_api("timeouts: {stateful: 59.9, commands: 300}")).warnings == ()
    (warning,) = load_text(with_api("timeouts: {stateful: 90}")).warnings
    assert warning.path == "communications_api.timeouts.stateful"
    assert "an agent gives up after 60 s" in warning.text


@pytest.mark.parametrize(
    ("limit", "least"),
    [("head_bytes", 2048), ("body_bytes", 1 << 20), ("head_timeout", 2), ("body_timeout", 2), ("send_timeout", 2)],
)
def test_a_limit_below_what_agents_need(load_text: Load, limit: str, least: int) -> None:
    """It is accepted, since a test or a small network may want it, and told of."""
    assert load_text(with_api(f"limits: {{{limit}: {least}}}")).warnings == ()
    (warning,) = load_text(with_api(f"limits: {{{limit}: 1}}")).warnings
    assert warning.path == f"communications_api.limits.{limit}"
    assert f"is little, less than {least} " in warning.text
