"""What the indexer says of its own machines: their clocks, and how full their disks are. Needs the right
``cluster_monitor``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, Final

import msgspec
from attrs import field, frozen

from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient

__all__ = ["Disk", "IndexerState", "Watermarks", "about_disks", "look_at_indexer", "parse_watermark"]

_STATS: Final = {
    "filter_path": "nodes.*.timestamp,nodes.*.name,nodes.*.fs.total.total_in_bytes,nodes.*.fs.total.available_in_bytes"
}
_SETTING: Final = "cluster.routing.allocation.disk"
# In flat answers a setting's name is one name to `filter_path`, its dots included.
_SETTINGS: Final = {"include_defaults": "true", "flat_settings": "true", "filter_path": "*.cluster*disk*"}
_UNITS: Final = {"b": 1, "k": 1024, "kb": 1024, "m": 1024**2, "mb": 1024**2, "g": 1024**3, "gb": 1024**3}
_UNITS_OF_LARGE: Final = {"t": 1024**4, "tb": 1024**4, "p": 1024**5, "pb": 1024**5}
_NUMBER: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z%]*)")


class _Total(msgspec.Struct):
    total_in_bytes: int = 0
    available_in_bytes: int = 0


class _FileSystem(msgspec.Struct):
    total: _Total = msgspec.field(default_factory=_Total)


class _Node(msgspec.Struct):
    timestamp: float
    name: str = "a node"
    fs: _FileSystem | None = None


class _Nodes(msgspec.Struct):
    nodes: dict[str, _Node] = {}


@frozen
class Disk:
    """The disk of one of the indexer's nodes, in bytes."""

    node: str
    free: int
    size: int

    @property
    def used(self) -> float:
        """The share of the disk that is used."""
        return 1 - self.free / self.size


@frozen
class Watermarks:
    """The least bytes that must be free on a disk of a size; None: there is none."""

    low: Callable[[int], float] | None = None
    flood: Callable[[int], float] | None = None


@frozen
class IndexerState:
    """``ahead``: by how many seconds the indexer's clocks, their middle, are ahead of this machine's."""

    ahead: float | None = None
    disks: list[Disk] = field(factory=list)
    watermarks: Watermarks = field(factory=Watermarks)


async def look_at_indexer(client: OpenSearchClient, now: Callable[[], float]) -> IndexerState | None:
    """What the indexer says of its clocks and disks; None: we aren't allowed to know. Raises ``BackendUnavailable``."""
    try:
        before = now()
        stats = await client.json("GET", "/_nodes/stats/os,fs", query=_STATS, type=_Nodes)
        ours = (before + now()) / 2
        answer = await client.json("GET", "/_cluster/settings", query=_SETTINGS)
    except IndexerUnavailable as exc:
        if exc.reply is not None and exc.reply.status == 403:
            return None
        raise
    disks = [
        Disk(node.name, node.fs.total.available_in_bytes, node.fs.total.total_in_bytes)
        for node in stats.nodes.values()
        if node.fs is not None and node.fs.total.total_in_bytes > 0
    ]
    clocks = [node.timestamp / 1000 - ours for node in stats.nodes.values()]
    return IndexerState(median(clocks) if clocks else None, disks, _watermarks(answer))


def _watermarks(answer: Any) -> Watermarks:
    """The settings in force: what was set for now, for good, and by default."""
    in_force: dict[str, Any] = {}
    for origin in ("defaults", "persistent", "transient"):
        found = answer.get(origin) if isinstance(answer, Mapping) else None
        in_force.update(found if isinstance(found, Mapping) else {})
    if str(in_force.get(f"{_SETTING}.threshold_enabled", "true")) == "false":
        return Watermarks()
    low, flood = (in_force.get(f"{_SETTING}.watermark.{name}") for name in ("low", "flood_stage"))
    return Watermarks(parse_watermark(low), parse_watermark(flood))


def parse_watermark(text: object) -> Callable[[int], float] | None:
    """``85%`` and ``0.85`` are shares that may be used, ``10gb`` what must be free. None for what isn't understood."""
    match = _NUMBER.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    if match is None:
        return None
    number, unit = float(match[1]), match[2]
    if unit in ("%", ""):
        share = number / 100 if unit else number
        return (lambda size: size * (1 - share)) if share <= 1 else None
    factor = {**_UNITS, **_UNITS_OF_LARGE}.get(unit)
    return None if factor is None else lambda _: number * factor


def about_disks(state: IndexerState) -> dict[str, str]:
    """A sentence by the name of one of the indexer's nodes."""
    found = {}
    low, flood = state.watermarks.low, state.watermarks.flood
    for disk in state.disks:
        end = "when it is above its flood stage, indices refuse writes, and agents get 503"
        if flood is not None and disk.free <= flood(disk.size):
            end = "it is above its flood stage: indices there refuse writes, and agents get 503"
        elif low is None or disk.free > low(disk.size):
            continue
        found[disk.node] = f"the disk of the indexer's node {disk.node} is {100 * disk.used:.0f} % full: {end}"
    return found
