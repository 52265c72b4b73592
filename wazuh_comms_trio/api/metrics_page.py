"""A snapshot of metrics as Prometheus reads it: its text format, or OpenMetrics with exemplars for a client that asks
for that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import Any, Final, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from wazuh_comms_trio.metrics.families import FAMILIES, Family

__all__ = ["render"]

_TOTAL: Final = "_total"


def render(snapshot: Mapping[str, Any], accept: str) -> tuple[bytes, str]:
    """The page, and its content type. ``accept``: the request's header."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(snapshot))
    encode, content_type = _choose_encoder(accept)
    return encode(registry), content_type


def _choose_encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept if accept.isascii() else "")  # a version is repeated in the content type
    except (TypeError, ValueError):  # prometheus-client compares versions that are none
        return choose_encoder("")


class _Snapshot(Collector):
    def __init__(self, snapshot: Mapping[str, Any]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        values: dict[str, list[tuple[list[str], float]]] = {}
        for name, labels, value in self._snapshot.get("values", ()):
            values.setdefault(name, []).append((labels, value))
        histograms: dict[str, list[list[Any]]] = {}
        for name, *parts in self._snapshot.get("histograms", ()):
            histograms.setdefault(name, []).append(parts)
        for family in FAMILIES.values():
            if family.kind == "histogram":
                yield _histogram(family, histograms.get(family.name, ()))
            else:
                yield _simple(family, values.get(family.name, ()))


def _simple(family: Family, values: Iterable[tuple[list[str], float]]) -> Metric:
    counted = {tuple(labels): value for labels, value in values}
    found = sorted({**dict.fromkeys(family.begins, 0.0), **counted}.items())
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = make(family.name.removesuffix(_TOTAL), family.help, labels=family.labels)
    for labels, value in found:
        metric.add_metric(labels, value)
    return metric


def _histogram(family: Family, histograms: Iterable[list[Any]]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    found = sorted(histograms, key=lambda each: each[0])
    if not found and not family.labels:  # as counters, so that the first is an increase
        size = len(family.buckets) + 1
        found = [[[], [0] * size, 0.0, [None] * size]]
    for labels, counts, total, exemplars in found:
        buckets = []
        sofar = 0
        for bound, count, exemplar in zip((*family.buckets, inf), counts, exemplars, strict=True):
            sofar += count
            le = floatToGoString(bound)  # type: ignore[no-untyped-call]
            # Prometheus' client takes None for an exemplar that isn't there, and its types don't say so.
            buckets.append((le, sofar, cast(Exemplar, _exemplar(exemplar))))
        metric.add_metric(labels, buckets=buckets, sum_value=total)
    return metric


def _exemplar(found: Any) -> Exemplar | None:
    return None if found is None else Exemplar({"request": found[0]}, found[1], found[2])
