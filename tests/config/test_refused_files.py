"""What is no configuration at all: files that can't be read, YAML that is refused, any text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.loading import LEAST, Load, problems_of
from wazuh_comms_trio.config import load
from wazuh_comms_trio.config.load import load_config
from wazuh_comms_trio.config.problems import ConfigError
from wazuh_comms_trio.config.source import parse


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: b: c\n", 1, "not YAML: mapping values are not allowed here (column 5)"),
        ("communications_api:\n\tport: 1\n", 2, "not YAML"),
        ("communications_api:\n  ssl: {key: *hunter2}\n", 2, "not YAML: found undefined alias"),
        ("a: [1\n", 2, "not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("- a\n- b\n", 1, "isn't a mapping of sections"),
        ("just words\n", 1, "isn't a mapping of sections"),
        ("", None, "empty"),
        ("# nothing\n", None, "empty"),
        ("a: \x07\n", 1, "not YAML: a character that may not stand in a file (0x7)"),
        (b"a: 1\nb: \xff\n", 2, "isn't UTF-8"),
        ("a: " + "[" * 3000, None, "nested too deeply"),
        ("<<: 5\n", 1, "not YAML"),
        ("a: %x\n", 1, "cannot start any token"),
    ],
)
def test_what_is_no_configuration_at_all(load_text: Load, text: str | bytes, line: int | None, said: str) -> None:
    ((_, at, words),) = problems_of(load_text, text)
    assert said in words
    assert at == line
    assert "hunter2" not in words


def test_aliases_that_multiply_are_refused(load_text: Load) -> None:
    lines = ["x0: &x0 {a: b}"] + [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 12)]
    ((_, _, text),) = problems_of(load_text, "\n".join(lines) + "\nindexer: *x11\n")
    assert "too many values" in text


def test_recursive_aliases_are_refused(load_text: Load) -> None:
    ((_, _, text),) = problems_of(load_text, "indexer: &i\n  hosts: [*i]\n")
    assert "nested too deeply" in text


@pytest.mark.parametrize("kind", ["missing", "folder", "unreadable", "large", "nul"])
def test_file_that_cannot_be_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ("a\0b" if kind == "nul" else "c.yml")
    if kind == "folder":
        file.mkdir()
    elif kind == "large":
        monkeypatch.setattr(load, "_LARGEST_FILE", 10)
        file.write_text(LEAST)
    elif kind == "unreadable":
        file.write_text(LEAST)
        monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    said = {
        "missing": "No such file",
        "folder": "isn't a file",
        "unreadable": "Permission denied",
        "large": "too large",
    }
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert said.get(kind, "can't be read") in str(caught.value)
    assert str(file) in str(caught.value)


@given(st.text(max_size=200) | st.text("{}[]&*!:-?,#|>'\"% \n\tab<0", max_size=60))
def test_any_text_is_read_without_an_exception(text: str) -> None:
    source = parse(text, ("a", "b"))
    assert isinstance(source.data, dict)
