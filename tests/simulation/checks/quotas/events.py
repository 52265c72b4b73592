"""A quota of stateless events of embedded stores, in files that are soon full: all of them have no more than there is,
and each agent's no more than its share. What is beyond it is refused until an operator gives more, or the oldest goes,
and nothing before that is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from tests.simulation.checks.quotas.documents import UNSEEN, Quota
from tests.simulation.plans.faults import ENDS, POWER
from tests.simulation.trace import Violation
from wazuh_comms_trio.backends.embedded.ndjson.records import envelope_room, records
from wazuh_comms_trio.backends.embedded.ndjson.segments import SegmentFile, segment_files
from wazuh_comms_trio.backends.embedded.ndjson.spool import spooled_bytes
from wazuh_comms_trio.config.models import EmbeddedEvents

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["EventQuota"]

#: Bytes of a file: one of a few small bodies, and less than an agent has.
_FILE: Final = (300, 900)
#: Bytes by which a body that is being received, by this request or one that was given up, and one that is about to be
#: written, may change what there is.
_UNDER_WAY: Final = 1500


class EventQuota(Quota):
    def __init__(self, world: World) -> None:
        super().__init__(world, "events")
        self._on_full: Literal["refuse", "delete_oldest"] = self.rng.choice(["refuse", "refuse", "delete_oldest"])
        self._file = self.rng.choice(_FILE)
        self._read: dict[str, tuple[int, Counter[str]]] = {}  # by file: its size, and whose that is
        self._before: dict[str, int] = {}

    @property
    def settings(self) -> EmbeddedEvents:
        return EmbeddedEvents(max_file_bytes=self._file, max_bytes=self.bytes, on_full=self._on_full)

    @property
    def deletes(self) -> bool:
        """Whether acknowledged events go, the oldest first."""
        return self.world.plan.features.small_events and self._on_full == "delete_oldest"

    def was_deleted(self, text: bytes) -> bool:
        """Whether an event may have gone with its file: it was there once."""
        return self.deletes and self.stores.disk.was_synced(text)

    def added(self, body: bytes) -> int:
        return len(body) + envelope_room("0" * 36) + 1 + _UNDER_WAY

    @property
    def is_reached(self) -> bool:
        """Whether a body that comes now may find no room."""
        return sum(self.used().values()) + 2 * _UNDER_WAY > self.least_bytes

    def used(self) -> Mapping[str, int]:
        """By whole records; what is being received is in it, as nobody's."""
        found = Counter[str]()
        for segment in self._segments():
            size, whose = self._read.get(segment.path.name, (-1, Counter()))
            if size != segment.size:
                whose = _shares(segment)
                self._read[segment.path.name] = segment.size, whose
            found += whose
        found[""] += sum(spooled_bytes(self.stores.folder / "events").values())
        return found

    def check(self) -> None:
        """Each second."""
        plan, used = self.world.plan, self.used()
        several = 0 if plan.workers == 1 and not self.world.plan.features.limits_change else UNSEEN
        if sum(used.values()) > self.bytes + several:
            raise Violation("event quota", f"events have {sum(used.values())} of {self.bytes} bytes")
        share = self.bytes // plan.agents
        kinds = {fault.kind for fault in plan.faults}
        # Of a process that was killed it isn't known whose its last file was; of one that lives it isn't, either.
        is_known = plan.workers == 1 and kinds.isdisjoint((*ENDS, *POWER)) and not plan.features.limits_change
        if is_known and not plan.removals and not self.deletes and not self.was_raised(60.0):
            more = {each: had for each, had in used.items() if each and had > share}
            if more:
                raise Violation("event quota", f"of {share} bytes each agent's events have {more}")
        self._check_deleted()

    def _check_deleted(self) -> None:
        """A file goes only where what came needed its room."""
        now = {segment.path.name: segment.size for segment in self._segments()}
        gone = {name: size for name, size in self._before.items() if name not in now}
        self._before = now
        if not gone:
            return
        self.world.trace.strike("full quota", "deleted", f"{len(gone)} files")
        if not self.deletes:
            if self.world.had_cause(2.0, POWER):
                return  # what wasn't synced
            raise Violation("event quota", f"{sorted(gone)} went, and nothing is to be deleted")
        # Those who have less give way, too, until they have gone.
        least = self.least_bytes
        if sum(now.values()) + sum(gone.values()) + _UNDER_WAY < least and not self.world.had_cause(2.0, POWER):
            raise Violation("event quota", f"{gone} went, of {least} bytes there are {sum(now.values())}")

    def _segments(self) -> list[SegmentFile]:
        return segment_files(self.stores.folder / "events")


def _shares(segment: SegmentFile) -> Counter[str]:
    """Whose the bytes of a file are; what is in no whole record is nobody's."""
    found, start = Counter[str](), 0
    with segment.path.open("rb") as file:
        for record in records(file, segment.size):
            found[record.agent_id] += record.end - start
            start = record.end
    if start < segment.size:
        found[""] += segment.size - start
    return found
