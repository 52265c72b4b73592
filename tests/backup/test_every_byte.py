"""Some bytes of a small store flipped, one at a time; all of them are by ``scripts/soak bytes``."""

from pathlib import Path

import pytest

from tests.backup.every_byte import KINDS, flip_all, make

pytestmark = [pytest.mark.real_clock, pytest.mark.expects_errors]  # of a damaged log

#: How many bytes are between two that are flipped, so that each kind has some.
STEPS = {"state.db": 499, "quarantine.db": 299, "log": 149, "payloads": 149, "segments": 61}


@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_found_or_harmless_or_listed(tmp_path: Path, kind: str) -> None:
    config, killed = await make(tmp_path)
    counts = flip_all(config, killed, kinds=[kind], step=STEPS.get(kind, 17), work=tmp_path)
    counter, lines = counts[kind]
    assert counter
    assert set(counter) <= {"found", "harmless", "listed"}, lines
