"""What the simulator takes for the content of a state."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backup.small_store import LARGE, make_store, state
from tests.simulation.checks.backups import check_backup, move
from tests.simulation.trace import Violation
from wazuh_comms_trio.config.models import Config

pytestmark = pytest.mark.real_clock


def payloads(config: Config) -> Path:
    return state(config) / "quarantine" / "payloads"


async def test_a_payload_that_no_row_names_yet_is_none_of_it(tmp_path: Path) -> None:
    """Its writer writes it before its row, and may be killed between."""
    config = await make_store(tmp_path)
    content = check_backup(config)
    (payloads(config) / ("0a" * 16)).write_bytes(b"on its way")
    assert check_backup(config) == move(config) == content


async def test_one_that_a_row_names_is(tmp_path: Path) -> None:
    config = await make_store(tmp_path)
    (named,) = payloads(config).iterdir()
    assert named.read_bytes() == LARGE
    named.unlink()
    with pytest.raises(Violation, match="backup"):
        check_backup(config)
