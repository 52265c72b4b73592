"""What the command refuses before anything goes out, each in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Tool

HERE = ("--agents", "3", "--url", "https://127.0.0.1:1")
AGENT = '{"uuid": "0194857f-39b5-7bfb-a7bc-c5c6835f03d1", "name": "a", "key": "k"}'


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (HERE, 2, "3 agents are needed, and there is no --agents-file: --user or --token enrols them"),
        ((*HERE, "--agents-file", "one.jsonl"), 2, "3 agents are needed, and one.jsonl has 1: --user"),
        ((*HERE, "--agents-file", "bad.jsonl"), 1, "bad.jsonl, line 2: isn't an agent"),
        ((*HERE, "--agents-file", "uuid.jsonl"), 1, "uuid.jsonl, line 1: the uuid isn't one"),
        (("--agents", "1", "--url", "https://192.0.2.1:27000"), 2, "192.0.2.1 (192.0.2.1) isn't loopback"),
        ((*HERE, "--enroll-url", "https://192.0.2.1:1"), 2, "isn't loopback"),
        (("--agents", "1", "--url", "http://127.0.0.1:1"), 1, "isn't of the form https://HOST:PORT"),
        (("--agents", "0", "--url", "https://127.0.0.1:1"), 2, "isn't a whole number greater than 0"),
        (("--agents", "99999999", "--url", "https://127.0.0.1:1"), 1, "descriptors, and this user may have"),
        ((*HERE, "--cert", "x"), 2, "--cert and --cert-key go together"),
        ((*HERE, "--ca", "/nowhere/ca.pem"), 1, "/nowhere/ca.pem: No such file"),
        ((*HERE, "--ca", "bad.jsonl"), 1, "bad.jsonl: "),
        ((*HERE, "--plot", "/nowhere/x.svg"), 2, "there is no folder for it"),
        ((*HERE, "--mix", "wazuh-server.yml"), 78, "unknown section"),
        ((*HERE, "--duration", "3"), 2, "isn't a time"),
        ((*HERE, "--token", "a b"), 2, "isn't a token"),
        ((*HERE, "--user", "x", "--enroll-url", "https://127.0.0.1:1"), 1, "connect: Connection refused"),
        ((*HERE, "--user", "x", "--agents-file", "folder"), 1, "folder: Is a directory"),
    ],
)
def test_refusals(
    words: tuple[str, ...], status: int, said: str, tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "one.jsonl").write_text(f"{AGENT}\n")
    (tmp_path / "bad.jsonl").write_text(f"{AGENT}\n{{}}\n")
    (tmp_path / "uuid.jsonl").write_text(AGENT.replace("0194857f-", ""))
    done = tool("simulate-fleet", *words, stdin="password\n")
    assert (done.status, done.out) == (status, ""), done
    assert said in done.err
