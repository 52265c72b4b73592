"""``load_config``: one file -> one checked configuration, or all its problems."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import attrs
from attrs import field, frozen

from wazuh_comms_trio.config.credentials import with_credentials
from wazuh_comms_trio.config.group_files import check_group_files
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.config.problems import ConfigError, Problem, near
from wazuh_comms_trio.config.reader import Reader
from wazuh_comms_trio.config.rules import apply_rules
from wazuh_comms_trio.config.source import Source, parse

T = TypeVar("T")

_LARGEST_FILE: Final = 1 << 20
_SECTIONS: Final = tuple(field.name for field in attrs.fields(Config))


@frozen
class LoadedConfig:
    """``warnings`` are for the log; each knows its place, and ``warning.render(file)`` makes a line of it. ``text`` is
    what the file said, secrets included: another process can read the same from it."""

    config: Config
    warnings: tuple[Problem, ...]
    file: Path
    text: str = field(default="", repr=False)


def load_config(
    path: Path | str, *, check_files: bool = True, credentials: bool = True, text: str | None = None
) -> LoadedConfig:
    """Reads the configuration's YAML file. Relative paths in it start at the file's folder. With ``check_files=False``
    keys and certificates aren't looked at, for programs that don't need them, nor, with ``credentials=False``, what the
    service manager passed in their place. ``text`` stands in for what the file says. Raises ``ConfigError`` with every
    problem, and nothing else."""
    file = Path(path)
    text = read_file(file) if text is None else text
    source = parse(text, _SECTIONS)
    if not source.data and source.problems:
        raise ConfigError(file, source.problems)
    reader = Reader(source)
    _note_misspelt_section(reader, source)
    config = _absolute(reader.config(), file.absolute().parent)
    if credentials:
        try:
            config = with_credentials(config)
        except OSError as error:
            reader.problem(f"the service's credentials can't be read: {error.filename}: {error.strerror}")
    apply_rules(reader, config)
    if check_files:
        from wazuh_comms_trio.config import check  # imports cryptography, which not every caller needs

        check.check_files(reader, config)
        check_group_files(reader, config)
    if reader.problems:
        raise ConfigError(file, _in_order(reader.problems), _in_order(reader.warnings))
    return LoadedConfig(config, tuple(_in_order(reader.warnings)), file, text)


def read_file(file: Path) -> str:
    """The text of a YAML file. Raises ``ConfigError``."""

    def failed(text: str, line: int | None = None) -> ConfigError:
        return ConfigError(file, [Problem("", line, text)])

    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise failed("isn't a file")
        with file.open("rb") as opened:
            data = opened.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise failed(f"can't be read: {error.strerror or error}") from error
    except ValueError:  # a NUL in the path
        raise failed("can't be read: not a path") from None
    if len(data) > _LARGEST_FILE:
        raise failed(f"is too large; a configuration has at most {_LARGEST_FILE} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise failed("isn't UTF-8", data.count(b"\n", 0, error.start) + 1) from None


def _note_misspelt_section(reader: Reader, source: Source) -> None:
    """Other programs' sections are left alone; but while `communications_api` is missing, a near name is probably
    it."""
    names = [str(place[0]) for place in source.lines if len(place) == 1]
    if "communications_api" not in names:
        for name in names:
            if name not in _SECTIONS and (hint := near(name, ["communications_api"])):
                reader.problem(f"unknown section{hint}", name)


def _absolute(model: T, folder: Path) -> T:
    """The model with its relative paths joined to the folder."""
    changes: dict[str, Any] = {}
    for each in attrs.fields(type(cast(Any, model))):
        value = getattr(model, each.name)
        if isinstance(value, Path):
            changes[each.name] = folder / value
        elif isinstance(value, tuple):
            changes[each.name] = tuple(folder / item if isinstance(item, Path) else item for item in value)
        elif attrs.has(type(value)):
            changes[each.name] = _absolute(value, folder)
    return cast(T, attrs.evolve(cast(Any, model), **changes))


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.line or 0, problem.path))
