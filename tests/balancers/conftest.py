"""What these tests start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.balancers.programs import missing
from tests.balancers.site import Site, open_site
from tests.conftest import Certificates
from tests.e2e.processes import Files, write_files


@pytest.fixture
def make_files(tmp_path: Path, certificates: Certificates) -> Callable[..., Files]:
    """``make_files(workers=2)``: a configuration in the test's own folder."""

    def make(**changes: Any) -> Files:
        return write_files(tmp_path, certificates.cert, certificates.key, **changes)

    return make


@pytest.fixture(scope="package")
def whole_site(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Site]:
    """Shared by all tests here: starting it takes as long as they do."""
    if reason := missing():
        pytest.skip(reason)
    with open_site(tmp_path_factory.mktemp("balancers"), certificates) as site:
        yield site


@pytest.fixture
def site(whole_site: Site) -> Site:
    whole_site.all_well()
    return whole_site
