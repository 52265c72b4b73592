"""Every test here runs over both kinds of server."""

from __future__ import annotations

import pytest

from tests.transport.server.kinds import KINDS, Open


@pytest.fixture(params=sorted(KINDS))
def opener(request: pytest.FixtureRequest) -> Open:
    return KINDS[request.param]
