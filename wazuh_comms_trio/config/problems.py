"""What is wrong with a configuration file, in words an operator can act on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from attrs import frozen

#: A place in the file: ``("communications_api", "host", 0)``.
Place = tuple[str | int, ...]

_LONGEST_SHOWN: Final = 80
_USER_INFO = re.compile(r"//[^/@\s]*@")


def dotted(place: Place) -> str:
    """``communications_api.host[0]``"""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, short, and without the password of an address. Secrets don't come
    here."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, dict):
        text = "a section"
    elif isinstance(value, list):
        text = "a list" if value else "an empty list"
    elif isinstance(value, str):
        text = '"' + _USER_INFO.sub("//***@", value).encode("unicode_escape").decode("ascii") + '"'
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def near(word: str, words: Sequence[str]) -> str:
    """A hint, ``; did you mean "port"?``, or nothing."""
    found = get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return f'; did you mean "{found[0]}"?' if found else ""


@frozen
class Problem:
    """One problem: ``path`` in the file (empty: the file as a whole), ``line`` (from 1), and a sentence that holds
    the value (masked where it is secret) and what is accepted."""

    path: str
    line: int | None
    text: str

    def render(self, file: Path | str) -> str:
        """The problem as a line: ``wazuh-server.yml:12: communications_api.port: "x" is not accepted: a whole number
        from 0 to 65535``"""
        where = f"{file}:{self.line}" if self.line is not None else str(file)
        return f"{where}: {self.path}: {self.text}" if self.path else f"{where}: {self.text}"


class ConfigError(Exception):
    """Raised where the configuration can't be used. ``problems`` has all of them, in the file's order; ``str()`` is one
    line for each."""

    def __init__(self, file: Path, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        self.file = file
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
        super().__init__("\n".join(problem.render(file) for problem in problems))
