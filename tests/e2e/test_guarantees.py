"""docs/guarantees.md names tests: they exist, and each promise has one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text()
#: Up to the part that says what isn't promised: one bullet a promise.
PROMISES = re.split(r"^\* ", TEXT.partition("\n## What is not promised")[0], flags=re.MULTILINE)[1:]


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_"))


def named(promise: str) -> list[tuple[str, str]]:
    """The tests a promise names. A name without a file is of the file before it."""
    found: list[tuple[str, str]] = []
    for path, name in re.findall(r"`([\w/]+\.py)?::(?:Test\w+::)?(\w+)`", promise):
        found.append((path or found[-1][0], name))
    return found


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise[:50].strip("*").replace(" ", "_"))
def test_every_promise_names_tests_that_are_there(promise: str) -> None:
    tests = named(promise)
    assert tests
    assert [(path, name) for path, name in tests if name not in functions_of(path)] == []


def test_there_are_promises() -> None:
    assert len(PROMISES) > 25
