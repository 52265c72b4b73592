"""Completions, in the shells themselves where they are here; and the manual pages, as man formats them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SHARE = Path(__file__).parents[2] / "share"
BASH = SHARE / "bash-completion/completions/wazuh-comms"
FISH = SHARE / "fish/vendor_completions.d"
ZSH = SHARE / "zsh/site-functions/_wazuh-comms"

pytestmark = pytest.mark.processes

LINES = [
    (["wazuh-comms", "ag"], {"agents"}),
    (["wazuh-comms", "agents", "re"], {"remove", "rekey"}),
    (["wazuh-comms", "--config", "agents", "agents", "sh"], {"show"}),
    (["wazuh-comms", "agents", "add", "--gr"], {"--group"}),
    (["wazuh-comms", "restore", "--dis"], {"--discard"}),
    (["wazuh-comms", "commands", "list", "--status", "pen"], {"pending"}),
    (["wazuh-comms-apid", "--ch"], {"--check"}),
    (["wazuh-comms", "nonsense", "xx"], set()),
]


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def in_bash(words: list[str], cwd: Path | None = None) -> set[str]:
    function = "_" + words[0].replace("-", "_")
    script = (
        f'source "{BASH}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    return set(run("bash", "--norc", "-c", script, "bash", *words, cwd=cwd).split())


def in_fish(words: list[str], cwd: Path | None = None) -> set[str]:
    line = " ".join(words)
    out = run("fish", "--no-config", "-c", f"source {FISH}/{words[0]}.fish; complete --do-complete '{line}'", cwd=cwd)
    return {offer.split("\t")[0] for offer in out.splitlines()}


SHELLS = [
    pytest.param(in_bash, id="bash"),
    pytest.param(in_fish, id="fish", marks=pytest.mark.skipif(shutil.which("fish") is None, reason="no fish is here")),
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "offered"), LINES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_what_may_follow_is_offered(shell: object, words: list[str], offered: set[str]) -> None:
    assert callable(shell)
    assert shell(words) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_files_are_offered_where_a_file_is_meant(shell: object, tmp_path: Path) -> None:
    assert callable(shell)
    (tmp_path / "march.backup").touch()
    for words in (["wazuh-comms", "backup", "mar"], ["wazuh-comms", "--config", "mar"]):
        assert shell(words, tmp_path) == {"march.backup"}


@pytest.mark.parametrize("shell", SHELLS)
def test_no_files_are_offered_where_another_value_is_meant(shell: object, tmp_path: Path) -> None:
    assert callable(shell)
    (tmp_path / "pending.backup").touch()
    assert shell(["wazuh-comms", "commands", "list", "--status", "pen"], tmp_path) == {"pending"}
    assert shell(["wazuh-comms", "agents", "list", "--name", "pen"], tmp_path) == set()


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh is here")
def test_zsh_takes_its_completion(tmp_path: Path) -> None:
    folder = ZSH.parent
    script = (
        f"fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump; print $_comps[wazuh-comms]"
    )
    assert run("zsh", "--no-rcs", "-c", script) == "_wazuh-comms\n"
    run("zsh", "--no-rcs", "-n", str(ZSH))


@pytest.mark.skipif(shutil.which("man") is None, reason="no man is here")
@pytest.mark.parametrize(
    ("page", "says"), [("man1/wazuh-comms.1", "quarantine replay"), ("man8/wazuh-comms-apid.8", "--check")]
)
def test_man_formats_the_pages_without_a_warning(page: str, says: str) -> None:
    assert says in run(
        "man", "--warnings", "--local-file", "--no-hyphenation", "--encoding=UTF-8", str(SHARE / "man" / page)
    )
