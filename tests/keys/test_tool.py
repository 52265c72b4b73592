"""``wazuh-comms keys`` beside a daemon that doesn't run: what it makes of files, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.cli.conftest import LEAST, Tool, audit, config, config_file, state, tool  # noqa: F401
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.daemon.remembered_keys import LONGEST_GRACE, KeyMemory
from wazuh_comms_trio.daemon.status import TokenKeysReport
from wazuh_comms_trio.services.authentication.tokens import TokenKeys

Audit = Callable[[], list[dict[str, Any]]]


def make_key(file: Path) -> str:
    """A new private key's id."""
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(file)
    file.chmod(0o640)
    return kid_of(file)


def kid_of(file: Path) -> str:
    return TokenKeys.from_pem(file.read_bytes()).kid


@pytest.fixture
def private(config_file: Path) -> Path:  # noqa: F811
    """``token.private_key``."""
    config_file.write_text(LEAST + "  token: {private_key: token.pem}\n")
    file = config_file.parent / "token.pem"
    make_key(file)
    return file


def uses(tool: Tool) -> dict[str, str]:  # noqa: F811
    return {row["use"]: row["key"] for row in tool("--json", "keys", "list").document["keys"]}


def test_both_steps(tool: Tool, private: Path, state: Path, audit: Audit) -> None:  # noqa: F811
    before = kid_of(private)
    assert uses(tool) == {"signs": before}
    said = tool("keys", "rotate", "publish")
    assert said.status == 0
    assert "when it starts" in said.out
    following = private.with_name("token.pem.next")
    assert following.stat().st_mode & 0o777 == 0o640
    after = kid_of(following)
    assert uses(tool) == {"signs": before, "next": after}
    assert tool("keys", "rotate", "publish").status == 0  # the same once more
    assert kid_of(following) == after
    assert tool("keys", "rotate", "sign").status == 0
    assert not following.exists()
    assert kid_of(private) == after
    assert uses(tool) == {"signs": after, "earlier": before}
    (left,) = KeyMemory(state).read().earlier.values()
    assert left == pytest.approx(private.stat().st_ctime + LONGEST_GRACE, abs=60)
    assert tool("keys", "revoke", before).status == 0
    assert uses(tool) == {"signs": after, "revoked": before}
    actions = [entry["action"] for entry in audit()]
    assert actions == ["keys rotate publish", "keys rotate publish", "keys rotate sign", "keys revoke"]
    assert "PRIVATE" not in json.dumps(audit())


def test_a_given_key(tool: Tool, private: Path) -> None:  # noqa: F811
    given = private.with_name("given.pem")
    kid = make_key(given)
    assert tool("keys", "rotate", "publish", "--key", str(given)).status == 0
    assert uses(tool)["next"] == kid
    make_key(given)
    refused = tool("keys", "rotate", "publish", "--key", str(given))
    assert refused.status == 1
    assert "is another key" in refused.err
    assert uses(tool)["next"] == kid


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\n"])
def test_what_is_no_key_changes_nothing(tool: Tool, private: Path, content: bytes) -> None:  # noqa: F811
    given = private.with_name("given.pem")
    given.write_bytes(content)
    refused = tool("keys", "rotate", "publish", "--key", str(given))
    assert (refused.status, "isn't a private key" in refused.err) == (1, True)
    assert "/nowhere can't be read" in tool("keys", "rotate", "publish", "--key", "/nowhere").err
    assert not private.with_name("token.pem.next").exists()


def test_the_key_that_signs_is_neither_next_nor_revoked(tool: Tool, private: Path) -> None:  # noqa: F811
    assert "signs already" in tool("keys", "rotate", "publish", "--key", str(private)).err
    refused = tool("keys", "revoke", kid_of(private))
    assert (refused.status, "signs with that key" in refused.err) == (1, True)
    assert "rotate publish" in tool("keys", "rotate", "sign").err
    assert tool("keys", "revoke", "short").status == 2


def test_the_tls_key_isnt_changed_by_it(tool: Tool, config_file: Path) -> None:  # noqa: F811
    refused = tool("keys", "rotate", "publish")
    assert (refused.status, "token.private_key is unset" in refused.err) == (1, True)


def test_a_next_key_that_cant_be_used_is_a_warning(config_file: Path, private: Path, certificates: Any) -> None:  # noqa: F811
    private.with_name("token.pem.next").write_text("nonsense")
    text = config_file.read_text().replace("key.pem, cert: cert.pem", f"{certificates.key}, cert: {certificates.cert}")
    config_file.write_text(text)
    loaded = load_config(config_file)
    assert [warning.text for warning in loaded.warnings if "is to sign next" in warning.text]


def test_a_grace_that_cant_be_written_changes_no_key(tool: Tool, private: Path, state: Path) -> None:  # noqa: F811
    assert tool("keys", "rotate", "publish").status == 0
    before = kid_of(private)
    (state / "token-keys.lock").mkdir()
    refused = tool("keys", "rotate", "sign")
    assert (refused.status, "can't be written to" in refused.err) == (1, True)
    assert kid_of(private) == before


def test_a_key_that_isnt_in_force_says_how_it_comes_to_be(
    tool: Tool,  # noqa: F811
    private: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signing = kid_of(private)
    assert tool("keys", "rotate", "publish").status == 0
    running = TokenKeysReport(signing=signing, accepted=[signing])
    with monkeypatch.context() as patched:
        patched.setattr("wazuh_comms_trio.cli.keys.node.keys_in_force", lambda arguments: running)
        listed = tool("keys", "list")
    assert [line.split()[1::2] for line in listed.lines[1:3]] == [["signs", "yes"], ["next", "no"]]
    assert "`wazuh-comms reload`; with one worker after a restart" in listed.out
    stopped = tool("keys", "list")
    assert stopped.status == 0
    assert "reload" not in stopped.out
