"""YAML text -> plain data that knows its lines. All YAML is parsed here; nothing of it is constructed by tag."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

import yaml
from attrs import frozen

from wazuh_comms_trio.config.problems import Place, Problem, dotted

_PREFIX: Final = "tag:yaml.org,2002:"
#: Far more than any configuration has. Aliases of aliases could otherwise multiply a small file without end.
_MOST_NODES: Final = 20_000
_DEEPEST: Final = 50
_NEEDED: Final = "communications_api.ssl.key and .cert at least are needed"


#: Numbers that YAML 1.1, YAML 1.2 and people read alike. PyYAML reads 1.1's: ``027000`` is 11776 there, ``1:30`` is 90.
_PLAIN_NUMBER: Final = re.compile(
    r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


class _Loader(yaml.SafeLoader):
    """PyYAML's, which also reads ``1e-3`` as the number that YAML 1.2 says it is, and notes in ``tagged`` which nodes
    have a tag of their own."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tagged: set[int] = set()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        tag = getattr(self.peek_event(), "tag", None)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        if tag is not None and node is not None:
            self.tagged.add(id(node))
        return node


_EXPONENT: Final = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver(_PREFIX + "float", _EXPONENT, list("-+0123456789."))


class Dumper(yaml.SafeDumper):
    """Writes so that ``parse`` reads the same: text that it would take for a number is put in quotes."""


Dumper.add_implicit_resolver(_PREFIX + "float", _EXPONENT, list("-+0123456789."))


class _TooLarge(Exception):
    """More nesting or more values than a configuration has."""


@frozen
class Source:
    """The sections that were asked for, as dicts, lists and scalars; ``lines`` has the line of every key and list
    item in them, and of every section of the file. ``words`` has what stands in the file where YAML reads another
    word as true or false (``no``)."""

    data: Mapping[str, Any]
    lines: Mapping[Place, int]
    problems: tuple[Problem, ...]
    words: Mapping[Place, str] = MappingProxyType({})

    def line(self, place: Place) -> int | None:
        """The line of a place, or of the nearest one above it that is in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)


def _failed(text: str, line: int | None = None) -> Source:
    return Source({}, {}, (Problem("", line, text),))


def parse(text: str, sections: Collection[str], *, needed: str = _NEEDED) -> Source:
    """Reads the file's ``sections``; others need only be YAML. ``needed``: what an empty file lacks. Never raises: what
    is wrong is in ``problems``. Their texts hold no words of the file but keys, since any value might be a password."""
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return _failed(f"the file is empty; {needed}")
        if not isinstance(root, yaml.MappingNode):
            return _failed("the file's top level isn't a mapping of sections (`communications_api:` ...)", _line(root))
        return _Reader(loader, sections).read(root)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return _failed(f"not YAML: a character that may not stand in a file ({ord(text[error.position]):#x})", line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ": ".join(_without_words(part) for part in (error.context, error.problem) if part)
        where = f" (column {mark.column + 1})" if mark else ""
        return _failed(f"not YAML: {words}{where}", mark.line + 1 if mark else None)
    except (_TooLarge, RecursionError):
        return _failed("nested too deeply, or too many values")
    finally:
        if loader is not None:
            loader.dispose()


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _without_words(problem: str) -> str:
    """The parser's sentence without what it quotes of the file (an undefined alias may be an unquoted password);
    names of tokens (``'<scalar>'``) and single characters stay."""
    return re.sub(r"\s*'(?!<)[^']{2,}'", "", problem)


class _Reader:
    """Walks the node tree: notes lines, finds duplicate keys, resolves merges."""

    def __init__(self, loader: _Loader, sections: Collection[str]) -> None:
        self._loader = loader
        self._sections = sections
        self._lines: dict[Place, int] = {}
        self._problems: list[Problem] = []
        self._words: dict[Place, str] = {}
        self._nodes = 0
        # A mapping that aliases share is flattened once: afterwards its merged keys look like its own.
        self._flat: dict[int, list[tuple[str, int, yaml.Node]]] = {}

    def read(self, root: yaml.MappingNode) -> Source:
        pairs = self._pairs(root, ())
        data = {name: self._value(value, (name,)) for name, value in pairs if name in self._sections}
        return Source(data, self._lines, tuple(self._problems), self._words)

    def _pairs(self, node: yaml.MappingNode, place: Place) -> list[tuple[str, yaml.Node]]:
        """The mapping's pairs, merged ones included; an explicit key wins over a merged one, as YAML says."""
        if id(node) not in self._flat:
            self._flat[id(node)] = self._flatten(node, place)
        for name, line, _ in self._flat[id(node)]:
            self._lines[(*place, name)] = line
        return [(name, value) for name, _, value in self._flat[id(node)]]

    def _flatten(self, node: yaml.MappingNode, place: Place) -> list[tuple[str, int, yaml.Node]]:
        own: dict[str, int] = {}
        for key, _ in node.value:
            name = _name(key)
            if id(key) in self._loader.tagged:
                self._unreadable(key, (*place, name), "has a tag (`!...`), which isn't taken here")
            if key.tag == _PREFIX + "merge":
                continue
            if name in own:
                text = f"stands here a second time (first in line {own[name]})"
                self._problems.append(Problem(dotted((*place, name)), _line(key), text))
            own.setdefault(name, _line(key))
        self._loader.flatten_mapping(node)
        pairs = {_name(key): (own.get(_name(key), _line(key)), value) for key, value in node.value}
        return [(name, line, value) for name, (line, value) in pairs.items()]

    def _value(self, node: yaml.Node, place: Place) -> Any:
        self._nodes += 1
        if self._nodes > _MOST_NODES or len(place) > _DEEPEST:
            raise _TooLarge
        self._lines.setdefault(place, _line(node))
        if id(node) in self._loader.tagged:
            return self._unreadable(node, place, "has a tag (`!...`), which isn't taken here")
        if isinstance(node, yaml.MappingNode):
            return {name: self._value(value, (*place, name)) for name, value in self._pairs(node, place)}
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*place, position)) for position, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        """Nothing else than what stands there: refused is what YAML 1.1 makes something else of."""
        kind, word = node.tag.removeprefix(_PREFIX), node.value
        if kind in ("int", "float") and (sentence := other_number(word)):
            return self._unreadable(node, place, sentence)
        try:
            value = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError):  # a month 13, or a number of 5000 digits
            return self._unreadable(node, place, "isn't the kind of value that it looks like; text stands in quotes")
        if kind == "timestamp":
            return self._unreadable(node, place, "is a date to YAML, which nothing here takes; text stands in quotes")
        if kind == "bool" and word.lower() not in ("true", "false"):
            self._words[place] = word
        return value

    def _unreadable(self, node: yaml.Node, place: Place, text: str) -> None:
        self._problems.append(Problem(dotted(place), _line(node), text))


def _name(key: yaml.Node) -> str:
    """A key as text. One that isn't a scalar matches no name and comes out as unknown."""
    return str(key.value) if isinstance(key, yaml.ScalarNode) else "<a list or mapping>"


def other_number(word: str) -> str | None:
    """What is wrong with a number that YAML 1.1 reads as another one than people do. None: nothing is."""
    if _PLAIN_NUMBER.fullmatch(word):
        return None
    if "_" in word:
        return "is a number with underscores; write it without them (text stands in quotes)"
    if ":" in word:
        return "is a number to the base of 60 in YAML 1.1 (`1:30` is 90); write it in decimal (text stands in quotes)"
    if re.match(r"[-+]?0[xb]", word):
        return "is a number to another base than ten; write it in decimal (text stands in quotes)"
    return "is a number that begins with a zero: octal in YAML 1.1; write it without the zero (text stands in quotes)"
