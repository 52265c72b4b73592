"""Every fuzzer, for less than a second: its corpus, and always the same mutations. ``scripts/fuzz`` goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.mutator import inputs
from tests.fuzz.target import Target, in_pieces
from tests.fuzz.targets import load, names


@pytest.mark.parametrize("name", names())
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    target = load(name)
    for number, data in enumerate(inputs(target, target.cases, seed=1)):
        try:
            target.check(data)
        except Exception:
            failed = tmp_path / "failed"
            failed.write_bytes(data)
            pytest.fail(f"input {number} ({failed}): {data[:200]!r}", pytrace=True)


def test_mutations_are_the_seeds_and_stay_within_bounds() -> None:
    target = Target(lambda _: None, (b"abc" * 20, b"xyz"), (b"word",), longest=70)
    first, again = list(inputs(target, 300, 1)), list(inputs(target, 300, 1))
    assert first == again
    assert first != list(inputs(target, 300, 2))
    assert first[:2] == [b"abc" * 20, b"xyz"]
    assert max(map(len, first)) <= 70
    assert len(set(first)) > 200


@pytest.mark.parametrize("data", [b"", b"a", b"abc" * 100])
def test_pieces_are_the_whole(data: bytes) -> None:
    assert b"".join(in_pieces(data)) == data
    assert all(in_pieces(data))
