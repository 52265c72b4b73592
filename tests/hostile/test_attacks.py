"""Every attack of ``scripts/soak hostile``, small, beside honest agents of a real daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.soak import ROWS, SMALL_QUOTA, Row, judge, run_row
from wazuh_comms_trio.testing import throwaway_certificate

pytestmark = [pytest.mark.processes, pytest.mark.real_clock]

#: Seconds; a busy machine's, not what is promised.
MOST_P99 = 3.0
MOST_LOG_IN = 4.0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
async def test_honest_agents_hardly_notice(row: Row, tmp_path: Path) -> None:
    outcome = await run_row(row, tmp_path / "files", throwaway_certificate(), small=True)
    assert outcome.report.tried >= row.small[0] / 4  # a busy machine's attacker comes to less
    assert judge(outcome, most_p99=MOST_P99, most_log_in=MOST_LOG_IN, quota=SMALL_QUOTA) == []
