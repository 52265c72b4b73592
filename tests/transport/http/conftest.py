"""Tests that take ``opener`` run over both clients."""

from __future__ import annotations

import pytest

from tests.transport.http.kinds import KINDS, Open


@pytest.fixture(params=sorted(KINDS))
def opener(request: pytest.FixtureRequest) -> Open:
    return KINDS[request.param]
