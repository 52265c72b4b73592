"""The status document: from a worker's report to what the operator's tool reads."""

from __future__ import annotations

from typing import Any

import pytest

from wazuh_comms_trio.daemon.status import (
    BulkWriterReport,
    LoggedError,
    WorkerReport,
    WorkerStatus,
    read_status,
    report_document,
    status_document,
    worker_document,
)

REPORT: dict[str, Any] = {
    "pid": 12,
    "age": 3.5,
    "lag": 0.01,
    "connections": 4,
    "crowded": False,
    "parked": 2,
    "tasks": 40,
    "backend": "ready",
    "batcher": {"waiting": 1, "room": 1023, "batches_in_flight": 1, "pieces_in_flight": 0},
    "last_error": None,
    "quarantine": None,
    "refused": [],
    "refused_total": None,
    "warnings": [],
    "keys": None,
}


def document(report: dict[str, Any]) -> dict[str, Any]:
    worker = worker_document("1.1", generation=2, state="serving", heard=0.9123, report=report)
    return status_document(
        started=1.5,
        up=60.04,
        warnings=["mind the gap"],
        generation=2,
        configured_workers=4,
        reload=True,
        workers=[worker],
    )


def test_a_report_as_json() -> None:
    batcher = BulkWriterReport(waiting=1, room=1023, batches_in_flight=1)
    report = WorkerReport(
        pid=12, age=3.5, lag=0.01, connections=4, crowded=False, parked=2, tasks=40, backend="ready", batcher=batcher
    )
    assert list(report_document(report).items()) == list(REPORT.items())
    failed = WorkerReport(last_error=LoggedError(text="no disk", time=1.5))
    assert report_document(failed)["last_error"] == {"text": "no disk", "time": 1.5}


def test_the_document() -> None:
    worker = {"name": "1.1", "generation": 2, "state": "serving", "heard": 0.9, **REPORT}
    head = {"started": 1.5, "up": 60.0, "warnings": ["mind the gap"]}
    expected = {**head, "generation": 2, "configured_workers": 4, "reload": True, "workers": [worker]}
    assert document(REPORT) == expected
    assert list(document(REPORT)["workers"][0]) == list(worker)


def test_the_tool_reads_what_the_worker_said() -> None:
    (worker,) = read_status(document(REPORT)).workers
    assert worker == WorkerStatus(
        name="1.1",
        generation=2,
        state="serving",
        heard=0.9,
        pid=12,
        age=3.5,
        lag=0.01,
        connections=4,
        crowded=False,
        parked=2,
        tasks=40,
        backend="ready",
        batcher=BulkWriterReport(waiting=1, room=1023, batches_in_flight=1),
    )


def test_a_worker_that_has_not_reported_yet() -> None:
    assert set(document({})["workers"][0]) == {"name", "generation", "state", "heard"}
    assert read_status(document({})).workers[0].pid is None


def test_a_later_versions_words_are_passed_on_and_not_read() -> None:
    later = document({**REPORT, "later": True})
    assert later["workers"][0]["later"] is True
    later["workers"][0]["state"] = "resting"
    assert read_status({**later, "later": [1]}).workers[0].state == "resting"


@pytest.mark.parametrize("what", [[], {}, {"workers": []}, {**document({}), "workers": [{"name": 1}]}])
def test_what_is_no_status(what: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected|missing"):
        read_status(what)
