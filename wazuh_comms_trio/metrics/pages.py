"""The text of docs/metrics.md."""

from __future__ import annotations

from wazuh_comms_trio.metrics.families import FAMILIES

__all__ = ["markdown"]

_HEAD = """\
# Metrics

What `GET /metrics` of the operators' listener says, made from the program by `scripts/make-docs`. How to scrape it:
[operating.md](operating.md#metrics-and-status). Values are the node's: of several workers counters are added, also
those of workers that have ended, and gauges as the last column says. No label's value is an agent's.

| name | type | labels | meaning | workers |
|---|---|---|---|---|
"""


def markdown() -> str:
    lines = []
    for family in FAMILIES.values():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        combine = family.combine if family.kind == "gauge" else "sum"
        lines.append(f"| `{family.name}` | {family.kind} | {labels} | {family.help} | {combine} |\n")
    return _HEAD + "".join(lines)
