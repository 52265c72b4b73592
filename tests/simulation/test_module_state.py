"""What a module keeps while its process lives is listed, or it would go from one simulated process to the next."""

from __future__ import annotations

import ast
import functools
import inspect
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from enum import Enum
from itertools import count, cycle
from types import ModuleType
from typing import Any, Final

import attrs
import msgspec
import trio

from tests.product_modules import import_all
from tests.simulation.module_state import KEPT, PACKAGE, STATE, reset_modules

#: Whatever is made of one of these is state ...
_STATE: Final = (bytearray, ContextVar, Counter, count, cycle, deque, defaultdict, OrderedDict, trio.lowlevel.RunVar)
_CACHE: Final = type(functools.lru_cache(lambda: None))
#: ... these are tables, as long as nobody changes them.
_TABLES: Final = (dict, list, set)
_CHANGES: Final = frozenset(
    {
        *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft"),
        *("remove", "reverse", "setdefault", "sort", "update"),
    }
)


def _name_of(node: ast.expr) -> str | None:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def _assigned(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Names that a module, or a class, gives to something."""
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else targets
        for target in targets:
            yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))
        for inner in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _assigned(getattr(node, inner, ()))


def _changed(tree: ast.AST) -> Iterator[str | None]:
    """Names of what is changed: by a method, at an index, or by a function that says ``global``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
            yield _name_of(node.func.value)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            yield _name_of(node.value)
        elif isinstance(node, ast.Global):
            yield from node.names


def _imported(tree: ast.AST) -> set[str | None]:
    """What a module has of others under their names."""
    return {each.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for each in node.names}


def _is_state(value: object, name: str, changed: frozenset[str | None]) -> bool:
    kind = type(value)
    if isinstance(value, Enum) or hasattr(kind, "__get__"):  # fixed, or what an instance has
        return isinstance(value, _CACHE)
    if isinstance(value, _STATE):
        return True
    if kind in _TABLES:
        return name in changed
    if name in changed and not isinstance(value, type | ModuleType) and not callable(value):
        return True
    ours = kind.__module__.startswith(f"{PACKAGE}.") and not isinstance(value, type)
    is_frozen = isinstance(value, msgspec.Struct) and kind.__struct_config__.frozen
    if attrs.has(kind):
        is_frozen = kind.__setattr__ is not object.__setattr__
    return ours and not is_frozen and (bool(getattr(value, "__dict__", None)) or _has_slots(kind))


def _has_slots(kind: type) -> bool:
    return any(getattr(each, "__slots__", ()) for each in kind.__mro__ if each is not object)


def _found() -> dict[str, Any]:
    """All state, by its name below the package."""
    found: dict[str, Any] = {}
    trees = {module: ast.parse(inspect.getsource(module)) for module in import_all()}
    elsewhere = {name for tree in trees.values() for name in _imported(tree) & set(_changed(tree))}
    for module, tree in trees.items():
        changed = frozenset(_changed(tree)) | elsewhere
        place = module.__name__.removeprefix(f"{PACKAGE}.")
        names = [*_assigned(tree.body)]
        names += [each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
        for name in names:
            if name != "__all__" and _is_state(value := getattr(module, name, None), name, changed):
                found[f"{place}.{name}"] = value
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                of_class = vars(getattr(module, node.name, object))
                for name in _assigned(node.body):
                    value = of_class.get(name)
                    if not isinstance(value, int) and _is_state(value, name, changed):
                        found[f"{place}.{node.name}.{name}"] = value
    return found


def test_what_modules_keep_is_listed() -> None:
    found = _found()
    listed = {*STATE, *KEPT}
    assert sorted(found.keys() - listed) == [], "state that goes from one simulated process to the next"
    assert sorted(listed - found.keys()) == [], "there is no such state any more"


def test_it_is_reset() -> None:
    from wazuh_comms_trio.backends.embedded.database.log.log_check import open_here
    from wazuh_comms_trio.http.server import connection

    reset_modules()
    first = next(connection._request_ids)
    open_here["x"] += 1  # type: ignore[index]
    reset_modules()
    assert next(connection._request_ids) == first
    assert not open_here
