from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.harness import HARNESSES, Clock, Harness
from wazuh_comms_trio.backends.interfaces import Backends


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, (_, marks) in HARNESSES.items()])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    opener, _ = HARNESSES[request.param]
    async with opener(tmp_path) as opened:
        yield opened


@pytest.fixture
async def backends(harness: Harness) -> Backends:
    return harness.backends


@pytest.fixture
async def clock(harness: Harness) -> Clock:
    return harness.clock
