"""Mixes: what the shipped ones say, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from wazuh_comms_trio.cli.fleet.mix import Mix, read_mix
from wazuh_comms_trio.config.problems import ConfigError

SHIPPED = sorted((Path(__file__).parents[3] / "conf" / "fleets").glob("*.yml"))


def problems(text: str, folder: Path) -> list[str]:
    file = folder / "mix.yml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_mix(file)
    return str(raised.value).replace(str(file), "mix.yml").splitlines()


def test_the_shipped_ones_are_good_and_different() -> None:
    mixes = {file.stem: read_mix(file) for file in SHIPPED}
    assert set(mixes) == {"ordinary", "flapping", "cloned", "slow-links", "herd"}
    assert mixes["ordinary"] == Mix()
    assert len(set(mixes.values())) == len(mixes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fleet: {stateless: {every: -1}}", "fleet.stateless.every"),
        ("fleet: {stateless: {every: often}}", "fleet.stateless.every"),
        ("fleet: {stateles: {every: 1}}", 'did you mean "stateless"'),
        ("fleet: {faults: {flapping: {share: 2}}}", "fleet.faults.flapping.share"),
        ("fleet: {faults: {flapping: {up: 0}}}", "fleet.faults.flapping.up"),
        ("fleet: {files: {name: 'a b'}}", "fleet.files.name"),
        ("fleet: {polls: 1}", "fleet.polls"),
        ("fleet: [1]", "fleet"),
        ("fleat: {polls: true}", 'did you mean "fleet"'),
        ("fleet: {polls: true}\nother: 1", "unknown section"),
        ("", "the file is empty; a mix has one section, `fleet`"),
        ("fleet:", "is missing"),
        ("{", "mix.yml"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str, tmp_path: Path) -> None:
    lines = problems(text, tmp_path)
    assert any(said in line for line in lines), lines
    assert len(lines) <= 3


def test_each_problem_has_its_line(tmp_path: Path) -> None:
    lines = problems("fleet:\n  stateless: {every: x}\n  stateful:\n    events: 0\n", tmp_path)
    assert any(":2:" in line or "line 2" in line for line in lines), lines
    assert any(":4:" in line or "line 4" in line for line in lines), lines


def test_a_file_that_isnt_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read_mix(tmp_path / "none.yml")
