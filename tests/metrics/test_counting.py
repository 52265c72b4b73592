"""What a worker counts, and how several workers' counts become the node's."""

from __future__ import annotations

from typing import Any

import pytest

from wazuh_comms_trio.foundation.log_context import log_context
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import MAX_SERIES, Metrics
from wazuh_comms_trio.metrics.families import FAMILIES
from wazuh_comms_trio.metrics.snapshots import NodeMetrics, add_up


def values(snapshot: dict[str, Any]) -> dict[tuple[str, ...], float]:
    return {(name.removeprefix("wazuh_comms_"), *labels): value for name, labels, value in snapshot["values"]}


def test_counters_and_gauges_are_in_a_snapshot() -> None:
    metrics = Metrics()
    metrics.count(families.LOGINS_TAKEN)
    metrics.count(families.LOGINS_REFUSED, "wrong_key", by=2)
    metrics.read(lambda: [(families.POLLS_PARKED, (), 7)])
    assert values(metrics.snapshot()) == {
        ("logins_taken_total",): 1,
        ("logins_refused_total", "wrong_key"): 2,
        ("polls_parked",): 7,
    }


def test_a_histogram_counts_by_buckets_and_keeps_the_last_request_of_each() -> None:
    metrics = Metrics()
    for request, seconds in (("a", 0.001), ("b", 0.0011), ("c", 0.002), (None, 500.0)):
        with log_context(request=request):
            metrics.observe(families.REQUEST_SECONDS, seconds, "agents", "/")
    ((name, labels, counts, total, exemplars),) = metrics.snapshot()["histograms"]
    assert (name, labels) == ("wazuh_comms_http_request_duration_seconds", ["agents", "/"])
    assert counts[:3] == [1, 2, 0]  # a bucket's bound is part of it
    assert counts[-1] == 1
    assert sum(counts) == 4
    assert total == pytest.approx(500.0041)
    assert [exemplar and exemplar[0] for exemplar in exemplars[:2]] == ["a", "c"]
    assert exemplars[-1] is None  # outside of a request


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    for number in range(MAX_SERIES + 50):
        metrics.count(families.LOGINS_REFUSED, f"cause {number}")
        metrics.observe(families.BACKEND_SECONDS, 1.0, "events", f"call {number}")
    snapshot = metrics.snapshot()
    assert len(snapshot["values"]) == MAX_SERIES + 1
    assert values(snapshot)["logins_refused_total", "other"] == 50
    assert len(snapshot["histograms"]) == MAX_SERIES + 1


def test_workers_counts_are_added_and_gauges_combined() -> None:
    one, other = Metrics(), Metrics()
    for metrics, number in ((one, 1), (other, 2)):
        metrics.count(families.LOGINS_TAKEN, by=number)
        metrics.observe(families.BATCH_EVENTS, 3 * number)
        gauges = [(families.LOOP_LAG, (), number / 10), (families.READY, (), float(number == 1))]
        metrics.read(lambda gauges=gauges: [*gauges, (families.TASKS, (), 5)])  # type: ignore[misc]
    node = add_up([one.snapshot(), other.snapshot()])
    assert values(node) == {
        ("logins_taken_total",): 3,
        ("event_loop_lag_seconds",): 0.2,
        ("ready",): 0,
        ("tasks",): 10,
    }
    ((_, _, counts, total, _),) = node["histograms"]
    assert (sum(counts), total) == (2, 9)


def test_what_an_ended_worker_counted_is_kept_and_its_gauges_go() -> None:
    node = NodeMetrics()
    for name in ("1.1", "2.2"):
        metrics = Metrics()
        metrics.count(families.LOGINS_TAKEN)
        metrics.observe(families.BATCH_EVENTS, 1)
        metrics.read(lambda: [(families.TASKS, (), 5)])
        node.note(name, metrics.snapshot())
    before = node.snapshot()
    node.ended("1.1")
    node.ended("1.1")  # nothing is counted twice
    after = node.snapshot()
    assert values(before)["tasks",] == 10
    assert values(after) == {("logins_taken_total",): 2, ("tasks",): 5}
    assert after["histograms"] == before["histograms"]


def test_what_a_later_versions_worker_counts_besides_is_left_out() -> None:
    later = {
        "values": [["wazuh_comms_later_total", [], 1], ["wazuh_comms_logins_taken_total", ["more"], 1]],
        "histograms": [["wazuh_comms_batch_operations", [], [1, 2], 1.0, [None, None]]],
    }
    assert add_up([later]) == {"values": [], "histograms": []}


def test_names_follow_the_conventions() -> None:
    for name, family in FAMILIES.items():
        assert name.startswith("wazuh_comms_")
        assert name.endswith("_total") == (family.kind == "counter"), name
        assert (family.kind == "histogram") == bool(family.buckets), name
        assert list(family.buckets) == sorted(set(family.buckets))
        assert not set(family.labels) & {"agent", "uuid", "id", "user", "address", "le"}
