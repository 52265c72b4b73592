"""What a scraper reads, by prometheus-client's own parsers."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from wazuh_comms_trio.api.metrics_page import render
from wazuh_comms_trio.foundation.log_context import log_context
from wazuh_comms_trio.metrics import families
from wazuh_comms_trio.metrics.counting import Metrics
from wazuh_comms_trio.metrics.families import FAMILIES, Family

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def everything() -> dict[str, Any]:
    """A snapshot with a value of every family."""
    metrics = Metrics()
    gauges: list[tuple[Family, tuple[str, ...], float]] = []
    for family in FAMILIES.values():
        labels = tuple(f'a {label} \\ " \n' for label in family.labels)
        with log_context(request="1.1-a"):
            if family.kind == "histogram":
                for value in (0.003, 0.004, 1e6):
                    metrics.observe(family, value, *labels)
            elif family.kind == "counter":
                metrics.count(family, *labels, by=3)
            else:
                gauges.append((family, labels, 1.5))
    metrics.read(lambda: gauges)
    return metrics.snapshot()


def test_openmetrics_has_every_family_and_exemplars() -> None:
    body, content_type = render(everything(), OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    found = {family.name: family for family in parse_openmetrics(body.decode())}
    assert set(found) == {name.removesuffix("_total") for name in FAMILIES}
    assert all(each.documentation for each in found.values())
    seconds = found["wazuh_comms_http_request_duration_seconds"]
    buckets = {s.labels["le"]: s for s in seconds.samples if s.name.endswith("_bucket")}
    assert buckets["0.005"].value == 2
    assert buckets["0.005"].exemplar is not None
    assert buckets["0.005"].exemplar.labels == {"request": "1.1-a"}
    assert buckets["+Inf"].value == 3
    assert buckets["0.005"].labels["route"] == 'a route \\ " \n'


def test_the_text_format_for_those_who_ask_for_nothing() -> None:
    body, content_type = render(everything(), "")
    assert content_type.startswith("text/plain; version=")
    found = {family.name for family in parse_text(body.decode())}
    assert found == {name.removesuffix("_total") for name in FAMILIES}
    assert "# {" not in body.decode().replace("# HELP", "").replace("# TYPE", "")  # no exemplars there


def test_counters_without_labels_begin_at_nought() -> None:
    body, _ = render(Metrics().snapshot(), OPENMETRICS)
    samples = {s.name: s.value for family in parse_openmetrics(body.decode()) for s in family.samples}
    assert samples[families.LOGINS_TAKEN.name] == 0
    assert families.LOGINS_REFUSED.name not in samples
    assert samples[f"{families.DELIVERY_SECONDS.name}_count"] == 0


@pytest.mark.parametrize("version", ["1e9", "x.y", "1..2", "9.\xe9", "", "9" * 5000])
def test_a_version_that_is_none_gets_the_text_format(version: str) -> None:
    _, content_type = render(everything(), f"application/openmetrics-text;version={version}")
    assert content_type.isascii()
    assert content_type.startswith(("text/plain; version=", "application/openmetrics-text; version=1.0.0"))
