"""What is going to hurt is said before it does."""

from __future__ import annotations

import logging

import pytest

from wazuh_comms_trio.cli.commands.status import find_problems
from wazuh_comms_trio.daemon.status import read_status
from wazuh_comms_trio.daemon.worker.early_warnings import KINDS, ListValidity, Measures, find_warnings
from wazuh_comms_trio.foundation.outage_log import WarningLog

GIB = 1024**3
NOW = 1_750_000_000.0
WELL = Measures(
    stores={"events": (7.9 * GIB, 10 * GIB), "quarantine": (0, GIB)},
    disks={"/var/lib/wazuh-comms": (11 * GIB, 1000 * GIB), "/small": (2 * GIB, 10 * GIB)},
    files=(800, 1024),
    memory=(79, 100),
    certificate_end=NOW + 15 * 86400,
    revoked=ListValidity(NOW - 27 * 86400, NOW + 3 * 86400),
)


def listed(of: float, left: float) -> Measures:
    """A list of revoked certificates for so many hours, of which so many are left."""
    return Measures(revoked=ListValidity(NOW - 3600 * (of - left), NOW + 3600 * left))


def test_all_is_well() -> None:
    assert find_warnings(WELL, NOW) == {}
    assert find_warnings(Measures(), NOW) == {}
    assert find_warnings(listed(24, 7), NOW) == {}  # it is made anew every day


@pytest.mark.parametrize(
    ("measures", "kind", "words"),
    [
        (Measures(stores={"events": (8 * GIB, 10 * GIB)}), "quota", "the events take 80 % of the 10.0 GiB"),
        (Measures(stores={"events": (8 * GIB, 10 * GIB)}), "quota", ": when it is all, agents get 503"),
        (Measures(stores={"events": (9.9 * GIB, 10 * GIB)}), "quota", ": where there isn't room, agents get 503"),
        (Measures(shares={"a1": (GIB, GIB)}), "quota", "the documents of agent a1 take 100 % of its share of 1.0 GiB"),
        (Measures(certificate_end=NOW + 13.5 * 86400), "certificate", "ends in 13 days"),
        (Measures(certificate_end=NOW + 1.5 * 86400), "certificate", "ends in 1 day:"),
        (Measures(certificate_end=NOW - 1), "certificate", "has ended"),
        (listed(720, 47.5), "certificate", "the list of revoked certificates ends in 47 hours: then no agent gets in"),
        (listed(24, 1.5), "certificate", "ends in 1 hour:"),
        (listed(24, -1), "certificate", "has ended: no agent gets in until a reload finds a newer one"),
        (Measures(files=(820, 1024)), "descriptors", "820 of 1024 files are open"),
        (Measures(memory=(900 * 1024**2, GIB)), "memory", "900.0 MiB in memory, 88 %"),
        (Measures(losses={"quarantine.db": "gone"}), "missing", "quarantine.db: gone; `wazuh-comms store verify"),
        (Measures(disks={"/var": (GIB, 100 * GIB)}), "disk", "the disk of /var has 1.0 GiB left, 1 %"),
    ],
)
def test_each_kind(measures: Measures, kind: str, words: str) -> None:
    ((found, (sentence,)),) = find_warnings(measures, NOW).items()
    assert (found, words in sentence) == (kind, True), sentence
    assert kind in KINDS


def test_the_log_has_the_beginning_and_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = WarningLog(logging.getLogger("warnings"))
    for found in ({}, {"disk": ["a"]}, {"disk": ["b"]}, {"disk": ["b"], "quota": ["c", "d"]}, {}):
        log.tell(found)
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert levels[:3] == [("WARNING", "a"), ("WARNING", "c"), ("WARNING", "d")]
    assert sorted(levels[3:]) == [("INFO", "the warning is over: disk"), ("INFO", "the warning is over: quota")]


def test_one_more_of_a_kind_is_said_and_one_that_comes_and_goes_is_not(caplog: pytest.LogCaptureFixture) -> None:
    log = WarningLog(logging.getLogger("warnings"))
    for texts in (["a 80 %"], ["a 81 %"], ["a 81 %", "b"], ["a 82 %"], ["a 82 %", "b"]):
        log.tell({"quota": texts})
    assert [record.getMessage() for record in caplog.records] == ["a 80 %", "a 81 %", "b"]


def test_the_status_says_each_once() -> None:
    worker = {"generation": 1, "state": "serving", "heard": 0.0, "warnings": ["the disk is nearly full"]}
    workers = [{"name": "1", **worker}, {"name": "2", **worker}]
    status = read_status({"generation": 1, "configured_workers": 2, "workers": workers})
    assert find_problems(status) == ["the disk is nearly full"]
