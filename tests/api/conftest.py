"""The applications on both servers."""

from __future__ import annotations

import pytest

from tests.api.servers import SERVERS, Serving


@pytest.fixture(params=SERVERS)
def serving(request: pytest.FixtureRequest) -> Serving:
    return SERVERS[request.param]
