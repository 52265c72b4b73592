"""What ``wazuh-comms status`` finds wrong, of which its exit status is made."""

from __future__ import annotations

from typing import Any

import pytest

from wazuh_comms_trio.cli.commands.status import failing_stores, find_problems
from wazuh_comms_trio.daemon.status import read_status

WELL = {"name": "1.1", "generation": 2, "state": "serving", "heard": 0.9, "lag": 0.01, "backend": "ready"}


def problems(**changes: Any) -> list[str]:
    workers = [WELL | {"name": "1.2"}, WELL | changes]
    return find_problems(read_status({"generation": 2, "configured_workers": 2, "workers": workers}))


def test_all_is_well() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"heard": 4.2}, "worker 1.1 hangs: nothing was heard of it for 4 s"),
        ({"lag": 1.5}, "worker 1.1: its event loop was 1.5 s late"),
        ({"backend": "index: the disk is full"}, "worker 1.1: index: the disk is full"),
        (
            {"quarantine": "the quarantine's share of agent x is full"},
            "worker 1.1: the quarantine's share of agent x is full",
        ),
        ({"state": "starting"}, "1 of 2 workers serve"),
        ({"generation": 1, "heard": 9.0, "state": "stopping"}, "1 of 2 workers serve"),
    ],
)
def test_what_is_wrong(changes: dict[str, Any], expected: str) -> None:
    assert problems(**changes) == [expected]


@pytest.mark.parametrize(
    ("backend", "shown"),
    [
        ("", ""),
        ("ready", "ready"),
        ("stopping", "stopping"),
        ("index: it answers: 502", "index"),
        ("index: it cannot be reached; engine: it leaves events unanswered", "index, engine"),
    ],
)
def test_each_store_that_fails_is_shown(backend: str, shown: str) -> None:
    assert failing_stores(backend) == shown
