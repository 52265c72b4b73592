"""Plain data -> models, by cattrs' dispatch on types. Collects every problem and goes on with the default in its
place."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast, get_args, get_origin

import attrs
from attrs import NOTHING, Attribute
from cattrs import Converter

from wazuh_comms_trio.config.accepted import accepted, has_secrets, types_of, without_none
from wazuh_comms_trio.config.key import Key, key_of
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.config.problems import Place, Problem, dotted, near, shown
from wazuh_comms_trio.config.source import Source

T = TypeVar("T")

#: Sections that other programs share with this one: what is unknown there is only warned about.
_SHARED: Final = frozenset({"indexer", "engine"})
#: A key's place -> the name it is taken for.
_ALIASES: Final[Mapping[Place, str]] = {("communications_api", "post"): "port"}


class _Unaccepted(Exception):
    """Raised for a value that isn't accepted; ``accepted`` says what would be."""

    def __init__(self, accepted: str, hint: str = "") -> None:
        super().__init__(accepted)
        self.accepted = accepted
        self.hint = hint


def is_blank(value: Any) -> bool:
    """``null`` and blank text mean "not set" everywhere, since existing files say ``ca: " "``."""
    return value is None or (isinstance(value, str) and not value.strip())


class Reader:
    """Reads one file's data. ``problems`` and ``warnings`` grow while it does, and by the rules that are applied
    afterwards."""

    def __init__(self, source: Source) -> None:
        self.problems: list[Problem] = list(source.problems)
        self.warnings: list[Problem] = []
        self._source = source
        self._place: Place = ()
        self._key = Key("")
        self._renamed: dict[Place, Place] = {}
        self._converter = self._make_converter()

    def config(self) -> Config:
        """The model, with defaults (and placeholders, where there is none) for what wasn't accepted."""
        return self.read(Config)

    def read(self, model: type[T]) -> T:
        """As ``config``, of another file: ``model`` is an attrs class, whose fields are the file's sections."""
        return cast(T, self._model(self._source.data, model))

    def problem(self, text: str, *steps: str | int) -> None:
        """Notes a problem; ``steps`` lead from the place being read, at the end from the top."""
        self.problems.append(self._here(text, *steps))

    def warning(self, text: str, *steps: str | int) -> None:
        self.warnings.append(self._here(text, *steps))

    def sound(self, *places: str) -> bool:
        """Whether nothing was wrong at these dotted paths, above or below them, so that a rule may look at the
        values."""
        bad = {problem.path for problem in self.problems}
        return not any(_is_within(place, path) or _is_within(path, place) for place in places for path in bad)

    def problem_at(self, path: str, text: str) -> None:
        """Notes a problem at a dotted path from the top."""
        self.problem(text, *path.split("."))

    def warning_at(self, path: str, text: str) -> None:
        self.warning(text, *path.split("."))

    def is_set(self, path: str) -> bool:
        """Whether the file says something at this dotted path."""
        value: Any = self._source.data
        for step in path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        return not is_blank(value)

    def _here(self, text: str, *steps: str | int) -> Problem:
        place = (*self._place, *steps)
        place = self._renamed.get(place, place)
        return Problem(dotted(place), self._source.line(place), text)

    @contextmanager
    def _inside(self, step: str | int, key: Key) -> Iterator[None]:
        outer = self._place, self._key
        self._place, self._key = (*self._place, step), key
        try:
            yield
        finally:
            self._place, self._key = outer

    # --- sections ---

    def _model(self, value: Mapping[str, Any], model: type) -> Any:
        """One section: every field by its own type. Unknown keys and missing ones are noted."""
        value = self._without_aliases(value)
        fields: tuple[Attribute[Any], ...] = attrs.fields(model)
        types = types_of(model)
        self._note_unknown(value, [field.name for field in fields])
        return model(**{field.name: self._field(value.get(field.name), field, types[field.name]) for field in fields})

    def _without_aliases(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for alias, name in _ALIASES.items():
            if alias[:-1] != self._place or (old := str(alias[-1])) not in value:
                continue
            rest = {key: item for key, item in value.items() if key != old}
            if name in value:
                self.problem(f"is another name of `{name}`, which is there too; keep `{name}` alone", old)
            else:
                self.warning(f"is taken for `{name}`; write `{name}`", old)
                self._renamed[*self._place, name] = alias
                rest[name] = value[old]
            value = rest
        return value

    def _note_unknown(self, value: Mapping[str, Any], names: list[str]) -> None:
        if not self._place:
            return  # sections of other programs
        note = self.warning if self._place[0] in _SHARED else self.problem
        for name in value:
            if name not in names:
                note(f"unknown key{near(name, names) or '; known here: ' + ', '.join(names)}", name)

    def _field(self, value: Any, field: Attribute[Any], kind: Any) -> Any:
        key = key_of(field)
        with self._inside(field.name, key):
            if is_blank(value):
                return self._unset(field, kind)
            try:
                result = self._converter.structure(self._from_list(value) if key.first_of_list else value, kind)
                if key.check and (instead := key.check(result)):
                    raise _Unaccepted(instead)
            except _Unaccepted as error:
                self._refuse(value, error, kind)
                return _placeholder(field, kind)
            return result

    def _unset(self, field: Attribute[Any], kind: Any) -> Any:
        if field.default is not NOTHING:
            return _placeholder(field, kind)
        if attrs.has(kind):
            return self._model({}, kind)  # says which of its keys are missing
        self.problem(f"is missing: {accepted(kind, self._key)}, and it is mandatory")
        return _placeholder(field, kind)

    def _refuse(self, value: Any, error: _Unaccepted, kind: Any) -> None:
        if self._key.secret:
            value_shown = "*** (not shown)"
        elif has_secrets(kind):
            value_shown = "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "this"
        elif isinstance(value, bool) and (word := self._word()):
            value_shown = f"{word} (to YAML the same as {shown(value)}; text stands in quotes)"
        else:
            value_shown = shown(value)
        self.problem(f"{value_shown} is not accepted; accepted is {error.accepted}{error.hint}")

    def _word(self) -> str | None:
        """The word that stands in the file for what YAML reads as true or false, when it is another one. A list's only
        item may stand there without the list."""
        words = self._source.words
        return words.get(self._place) or words.get(self._place[:-1])

    # --- values ---

    def _make_converter(self) -> Converter:
        converter = Converter(detailed_validation=False)
        for kind, hook in (
            (bool, self._bool),
            (int, self._int),
            (float, self._float),
            (str, self._str),
            (Path, self._path),
        ):
            converter.register_structure_hook(kind, hook)
        converter.register_structure_hook_func(attrs.has, self._section)
        converter.register_structure_hook_func(lambda kind: _origin(kind) is Literal, self._literal)
        converter.register_structure_hook_func(lambda kind: _origin(kind) is tuple, self._tuple)
        converter.register_structure_hook_func(lambda kind: _origin(kind) is Mapping, self._mapping)
        return converter

    def _section(self, value: Any, kind: type) -> Any:
        if not isinstance(value, dict):
            raise _Unaccepted("a section (" + ", ".join(field.name for field in attrs.fields(kind)) + ")")
        return self._model(value, kind)

    def _bool(self, value: Any, kind: type) -> bool:
        if not isinstance(value, bool):
            raise _Unaccepted(accepted(kind, self._key))
        return value

    def _int(self, value: Any, kind: type) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self._key.accepts_number(value):
            raise _Unaccepted(accepted(kind, self._key, value), without_zero(value))
        return value

    def _float(self, value: Any, kind: type) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not self._key.accepts_number(value):
            raise _Unaccepted(accepted(kind, self._key, value), without_zero(value))
        if not math.isfinite(value):
            raise _Unaccepted(accepted(kind, self._key, value))
        return float(value)

    def _str(self, value: Any, kind: type) -> str:
        if not isinstance(value, str):
            quotes = "" if isinstance(value, (list, dict)) else " (put it in quotes)"
            raise _Unaccepted(accepted(kind, self._key) + quotes)
        if not _is_text(value):
            raise _Unaccepted(accepted(kind, self._key))
        return value

    def _path(self, value: Any, kind: type) -> Path:
        if not isinstance(value, str) or not _is_text(value):
            raise _Unaccepted(accepted(kind, self._key))
        return Path(value)

    def _literal(self, value: Any, kind: Any) -> Any:
        choices = get_args(kind)
        if not isinstance(value, str) or value not in choices:
            raise _Unaccepted(accepted(kind, self._key), near(value, choices) if isinstance(value, str) else "")
        return value

    def _tuple(self, value: Any, kind: Any) -> tuple[Any, ...]:
        """A list as a tuple; blank items count for nothing (``certificate_authorities: ['']``). Every item's problem is
        its own."""
        key, inner = self._key, get_args(kind)[0]
        if not isinstance(value, list):
            if not key.scalar_or_list or isinstance(value, dict):
                raise _Unaccepted(accepted(kind, key))
            value = [value]
        items = []
        for position, item in enumerate(value):
            if is_blank(item):
                continue
            with self._inside(position, key):
                try:
                    items.append(self._converter.structure(item, inner))
                except _Unaccepted as error:
                    self._refuse(item, error, inner)
        if key.non_empty and all(is_blank(item) for item in value):
            raise _Unaccepted(accepted(kind, key))
        return tuple(items)

    def _mapping(self, value: Any, kind: Any) -> dict[str, str]:
        if not isinstance(value, dict) or not all(isinstance(item, str) and _is_text(item) for item in value.values()):
            raise _Unaccepted((self._key.check and self._key.check({"": ""})) or accepted(kind, self._key))
        return dict(value)

    def _from_list(self, value: Any) -> Any:
        if not isinstance(value, list) or not value:
            return value
        if len(value) > 1:
            self.warning(f"has {len(value)} values; the first is used")
        return value[0]


def without_zero(value: Any) -> str:
    """A hint for ``08080``, which is no number to YAML, since octal digits end at 7."""
    return "; write it without the zero" if isinstance(value, str) and re.fullmatch(r"[-+]?0\d+", value) else ""


def _is_within(path: str, other: str) -> bool:
    return path == other or path.startswith((other + ".", other + "["))


def _is_text(value: str) -> bool:
    """YAML can spell NULs and halves of surrogate pairs, which nothing that we call takes."""
    return "\0" not in value and not any(0xD800 <= ord(char) <= 0xDFFF for char in value)


def _origin(kind: Any) -> Any:
    return get_origin(kind)  # whose types mypy thinks to know better


def _placeholder(field: Attribute[Any], kind: Any) -> Any:
    """A value to go on with: the default; without one something of the type: no model with it leaves
    ``load_config``."""
    if field.default is not NOTHING:
        factory = getattr(field.default, "factory", None)
        return factory() if factory else field.default
    kind = without_none(kind)
    if attrs.has(kind):
        types = types_of(kind)
        mandatory = [inner for inner in attrs.fields(kind) if inner.default is NOTHING]
        return kind(**{inner.name: _placeholder(inner, types[inner.name]) for inner in mandatory})
    return Path() if kind is Path else ""
