"""After a fork parent and child don't read each other's answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_a_child_has_connections_of_its_own(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.transport.blocking.forking", str(home)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    numbers = json.loads(done.stdout)
    assert set(numbers) == {"db", "keystore", "http"}
    for before, kept, first_child, second_child, after in numbers.values():
        assert before == kept == after, "the parent's connection is kept"
        assert len({before, first_child, second_child}) == 3, "and nobody else's"
