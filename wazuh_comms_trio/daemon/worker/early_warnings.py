"""Shortages that are near: told in the status, in metrics, and in the log when one begins and ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

__all__ = ["KINDS", "SHARE", "ListValidity", "Measures", "find_warnings"]

#: Of a limit: from there on it is worth a warning.
SHARE: Final = 0.8
#: The share of a quota from which on something may not fit any more.
FULL: Final = 0.98
#: Seconds before a certificate's end.
CERTIFICATE_SOON: Final = 14 * 86400.0
#: Seconds before the end of a list of revoked certificates, and the share of its time: some are made anew every day.
LIST_SOON: Final = 2 * 86400.0
LIST_SHARE: Final = 0.25
#: A disk is nearly full when both are left of it: a share, and bytes.
DISK_SHARE: Final = 0.1
DISK_BYTES: Final = 10 * 1024**3
KINDS: Final = ("quota", "certificate", "descriptors", "memory", "disk", "missing")


@frozen
class ListValidity:
    """The time of a list of revoked certificates, in epoch seconds."""

    start: float
    end: float


@frozen
class Measures:
    """Amounts that are compared with their limits, in bytes, but for files. ``stores``: used and limit by name;
    ``shares``: used and limit of those agents that have most of what one may have of the documents; ``disks``: free and
    all, by the folder on it; ``memory``: resident and this process's part of the limit; ``certificate_end``: epoch
    seconds. ``losses``: what became of databases that are gone as a whole, by name. ``revoked``: of the
    lists of revoked certificates the one that ends first."""

    stores: Mapping[str, tuple[float, float]] = field(factory=dict)
    shares: Mapping[str, tuple[float, float]] = field(factory=dict)
    disks: Mapping[str, tuple[float, float]] = field(factory=dict)
    files: tuple[int, int] | None = None
    memory: tuple[int, int] | None = None
    certificate_end: float | None = None
    losses: Mapping[str, str] = field(factory=dict)
    revoked: ListValidity | None = None


def find_warnings(measures: Measures, now: float) -> dict[str, list[str]]:
    """Warnings as sentences, by kind. Of a limit that is reached others speak."""
    found: dict[str, list[str]] = {}
    for name, (used, limit) in measures.stores.items():
        if limit and used >= SHARE * limit:
            share = f"{_percent(used, limit)} of the {_size(limit)} that they may"
            text = f"the {name} take {share}: {_when(used, limit)}, agents get 503"
            found.setdefault("quota", []).append(text)
    for agent_id, (used, limit) in measures.shares.items():
        share = f"{_percent(used, limit)} of its share of {_size(limit)}"
        text = f"the documents of agent {agent_id} take {share}: {_when(used, limit)}, what adds to them gets 503"
        found.setdefault("quota", []).append(text)
    end = measures.certificate_end
    if end is not None and end - now < CERTIFICATE_SOON:
        days = int((end - now) // 86400)
        when = f"ends in {days} day{'' if days == 1 else 's'}" if end > now else "has ended"
        found["certificate"] = [f"the agents' listeners' certificate {when}: agents that verify it will not connect"]
    if measures.revoked is not None and (sentence := _about_list(measures.revoked, now)):
        found.setdefault("certificate", []).append(sentence)
    if measures.files is not None and measures.files[0] >= SHARE * measures.files[1]:
        text = f"{measures.files[0]} of {measures.files[1]} files are open (LimitNOFILE): then connections have to wait"
        found["descriptors"] = [text]
    if measures.memory is not None and measures.memory[0] >= SHARE * measures.memory[1]:
        text = (
            f"a worker has {_size(measures.memory[0])} in memory, {_percent(*measures.memory)} of its part (MemoryMax)"
        )
        found["memory"] = [text]
    for name, loss in measures.losses.items():
        found.setdefault("missing", []).append(f"{name}: {loss}; `wazuh-comms store verify --repair` accepts that")
    for folder, (free, whole) in measures.disks.items():
        if free < DISK_SHARE * whole and free < DISK_BYTES:
            text = f"the disk of {folder} has {_size(free)} left, {_percent(free, whole)}: without any, agents get 503"
            found.setdefault("disk", []).append(text)
    return found


def _about_list(revoked: ListValidity, now: float) -> str | None:
    left = revoked.end - now
    if left >= min(LIST_SOON, LIST_SHARE * (revoked.end - revoked.start)):
        return None
    if left <= 0:
        return "the list of revoked certificates has ended: no agent gets in until a reload finds a newer one"
    hours = int(left // 3600)
    when = f"{hours} hour{'' if hours == 1 else 's'}"
    return f"the list of revoked certificates ends in {when}: then no agent gets in until a reload finds a newer one"


def _when(used: float, limit: float) -> str:
    """A quota is hardly ever met exactly: the last that fits fills most of it."""
    return "when it is all" if used < FULL * limit else "where there isn't room"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def _size(number: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
