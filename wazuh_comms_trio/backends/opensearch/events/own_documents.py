"""An agent's own documents follow it: a create that met other content, an update that met nothing are put right here.

The indexer answers 409 or 404 to these, and applies what follows them in the same call: to the old document, or to
none. So of each such document the operations from that one on are applied once more, in order, to what is stored now,
and the result is written in one step, under the condition that nothing else was written since: a replacement with the
``_seq_no`` and ``_primary_term`` that were read, a new document as a ``create`` (an upsert would revive what was
deleted meanwhile). The loser of this race tries again, as after any failure that may pass.

An agent that creates its documents again mostly has other content for them, and reading what is stored is most of what
that costs the indexer. Of many such documents one in ten is read: where that shows other content, the others are
replaced whatever they hold, under the same condition; where it shows the same, they are read and compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Final

import msgspec
import trio

from wazuh_comms_trio.backends.document_rules import Document, Key, key_of, plan
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult, Outcome
from wazuh_comms_trio.backends.json_values import equal_json
from wazuh_comms_trio.backends.opensearch.client.bulk import (
    BulkItem,
    create_line,
    delete_if_line,
    judge,
    replace_if_line,
    to_result,
)
from wazuh_comms_trio.backends.opensearch.events.stored_documents import (
    Stored,
    StoredDocuments,
    Unread,
    Unreadable,
    Write,
    worked_out,
)
from wazuh_comms_trio.errors import BackendUnavailable

#: Bytes of documents that are worked through before other tasks run: milliseconds.
BYTES_PER_TURN: Final = 256 * 1024
#: What a document costs beside its bytes, as bytes.
BYTES_PER_DOCUMENT: Final = 2 * 1024
#: ... and in one step of one document, of which each operation reads all: a tenth of a second or two.
_BYTES_PER_STEP: Final = 8 * 1024 * 1024

#: Of so many documents that one create each is to replace, one in ``_SAMPLE`` is read at first.
_SAMPLED_FROM: Final = 100
_SAMPLE: Final = 10

NOT_TRIED: Final = ItemResult(503, "not now", Outcome.PASSING)
_REPLACED: Final = ItemResult(200, "updated")


class Corrections:
    """What is to be put right after one bulk call: ``positions`` are those of the operations that were answered 409 or
    404. ``results`` are the call's, and are changed here. ``is_open``: whether somebody waits for the operation at a
    position; what nobody waits for isn't begun any more."""

    def __init__(
        self,
        operations: Sequence[DocumentOperation],
        results: list[ItemResult | None],
        positions: Collection[int],
        is_open: Callable[[int], bool],
    ) -> None:
        self._operations = operations
        self._results = results
        self._is_open = is_open
        self._to_compare: set[Key] = set()
        self._same = self._other = 0  # of what was read
        #: By document: runs of positions, in order; each run is written in one step.
        self._runs: dict[Key, deque[list[int]]] = {}
        first = {key_of(operations[position]): position for position in sorted(positions, reverse=True)}
        found: dict[Key, list[int]] = {key: [] for key in sorted(first, key=first.__getitem__)}
        for position in range(min(positions), len(operations)):
            key = key_of(operations[position])
            if key in first and position >= first[key]:
                found[key].append(position)
        for key, run in found.items():
            self._add(key, run)

    def _add(self, key: Key, positions: Sequence[int]) -> None:
        """Adds the first run of a document's operations up to the first that has to be tried again; with that one,
        those after it have to."""
        run: list[int] = []
        passing = False
        for position in positions:
            result = self._results[position]
            passing = passing or result is None or result.outcome is Outcome.PASSING
            if passing:
                self._results[position] = NOT_TRIED
            elif result is not None and result.outcome is not Outcome.REFUSED:
                run.append(position)
        self._runs[key] = deque([run])

    async def make(self, documents: StoredDocuments) -> None:
        """Makes corrections until nothing is left. What can't be put right now is to be tried again, with all that
        follows on it."""
        while self._runs:
            left = dict.fromkeys(self._still_open(list(islice(self._runs, documents.at_once))))
            try:
                async with aclosing(documents.pages(list(left), self._unread(left))) as pages:
                    async for page in pages:
                        for key in page:
                            del left[key]
                        await self._step(documents, page)
            except BackendUnavailable as exc:
                text = "indexer: documents that are to be replaced could not be read: %s"
                documents.failures.refused("failures to read documents that are to be replaced", text, exc)
                self._give_up(left)

    def _unread(self, keys: Iterable[Key]) -> set[Key]:
        """Those whose content needn't be read at first."""
        replaced = [key for key in keys if key not in self._to_compare and self._is_one_create(key)]
        return set(replaced).difference(replaced[::_SAMPLE]) if len(replaced) >= _SAMPLED_FROM else set()

    def _is_one_create(self, key: Key) -> bool:
        runs = self._runs[key]
        return len(runs) == 1 and len(runs[0]) == 1 and self._operations[runs[0][0]].action == "create"

    async def _step(self, documents: StoredDocuments, page: Mapping[Key, Stored | Unreadable | None]) -> None:
        writes: dict[Key, tuple[Write, Sequence[ItemResult]]] = {}
        worked = 0
        unread = {key: present for key, present in page.items() if isinstance(present, Unread)}
        for key in self._still_open([key for key in page if key not in unread]):
            present = page[key]
            size = self._cut(key, present)
            worked += size + BYTES_PER_DOCUMENT
            planned = None if isinstance(present, Unreadable) else await worked_out(size, self._plan, key, present)
            if planned is None:
                self._give_up([key])
            elif planned[0] is None:
                self._settle(key, planned[1])
            else:
                writes[key] = planned[0], planned[1]
            if worked >= BYTES_PER_TURN:
                worked = 0
                await trio.lowlevel.checkpoint()
        self._other += len(writes)
        self._same += len(page) - len(unread) - len(writes)
        if self._other > self._same:
            writes |= {key: (self._replacement(key, present), (_REPLACED,)) for key, present in unread.items()}
        else:
            self._to_compare.update(unread)
        open_keys = self._still_open(list(writes))
        if not open_keys:
            return
        answers = await documents.write([writes[key][0] for key in open_keys])
        for key, answer in zip(open_keys, answers, strict=True):
            verdict = "passing" if answer is None else judge(answer)
            if verdict == "done":
                self._settle(key, writes[key][1])
            elif verdict == "refused" and answer is not None:
                self._refuse(key, answer)
            else:
                self._give_up([key])

    def _replacement(self, key: Key, present: Unread) -> Write:
        """What one create makes of a document that holds something else."""
        body = self._operations[self._runs[key][0][0]].body or b""
        return _replace(key, present.seq_no, present.primary_term, body)

    def _cut(self, key: Key, present: Stored | Unreadable | None) -> int:
        """The document's next run becomes so short that it is worked through quickly. Returns the bytes for that."""
        runs = self._runs[key]
        run = runs[0]
        size = max((len(self._operations[position].body or b"") for position in run), default=0)
        if isinstance(present, Stored):
            size = max(size, len(present.body))
        most = max(1, _BYTES_PER_STEP // max(1, size))
        if len(run) > most:
            runs[0] = run[:most]
            runs.insert(1, run[most:])
        return size * min(len(run), most)

    def _plan(self, key: Key, present: Stored | None) -> tuple[Write | None, Sequence[ItemResult]] | None:
        return plan_write(key, [self._operations[position] for position in self._runs[key][0]], present)

    def _still_open(self, keys: Sequence[Key]) -> Sequence[Key]:
        closed = {key for key in keys if not all(map(self._is_open, self._runs[key][0]))}
        self._give_up(closed)
        return [key for key in keys if key not in closed]

    def _settle(self, key: Key, results: Sequence[ItemResult]) -> None:
        runs = self._runs[key]
        for position, result in zip(runs.popleft(), results, strict=True):
            self._results[position] = result
        if not runs:
            del self._runs[key]

    def _refuse(self, key: Key, answer: BulkItem) -> None:
        """Of several operations at once it can't be told which is at fault: they go in two runs then."""
        runs = self._runs[key]
        if len(runs[0]) == 1:
            self._settle(key, [to_result(answer)])
            return
        run = runs.popleft()
        middle = len(run) // 2
        runs.extendleft((run[middle:], run[:middle]))

    def _give_up(self, keys: Collection[Key]) -> None:
        for key in keys:
            for run in self._runs.pop(key):
                for position in run:
                    self._results[position] = NOT_TRIED


def plan_write(
    key: Key, operations: Sequence[DocumentOperation], present: Stored | None
) -> tuple[Write | None, Sequence[ItemResult]] | None:
    """What ``operations`` on one document make of it: the conditional write that is needed, None where none is, and
    their results after it. None when that can't be told."""
    current = {} if present is None else {key: Document(present.body, 1)}
    try:
        results, changes = plan(operations, current)
    except (msgspec.MsgspecError, RecursionError):
        return None
    after = changes.get(key, current.get(key))
    index, document_id = key
    if after is None:
        if present is None:
            return None, results
        line = delete_if_line(index, document_id, present.seq_no, present.primary_term)
        return Write(line[:-1], None), results
    if present is not None and key not in changes:
        return None, results
    body = _one_line(after.body)
    if present is None:
        return Write(create_line(index, document_id)[:-1], body), results
    differs = len(operations) == 1 and operations[0].action == "create"  # the plan has compared them
    if not differs and equal_json(present.body, body):
        return None, results
    return _replace(key, present.seq_no, present.primary_term, body), results


def _replace(key: Key, seq_no: int, primary_term: int, body: bytes) -> Write:
    return Write(replace_if_line(*key, seq_no, primary_term)[:-1], _one_line(body))


def _one_line(body: bytes) -> bytes:
    return body if b"\n" not in body else msgspec.json.format(body, indent=-1)
