"""What stands behind the daemon, as Protocols. Services and the APIs know these and never a store.

Every implementation passes the same contract suite (tests/contract/). Rules that hold for all of them:

* ``BackendUnavailable`` (and its subclasses) means a *passing* failure: nothing was promised, the same call may succeed
  later.
* A call that is cancelled may have happened all the same. Marks, claims and writes are therefore idempotent.
* A write that returned is durable: it survives ``kill -9`` and, for embedded stores, a power cut (fsync).
* Times are epoch seconds (float, UTC) from the injected wall clock.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from hashlib import sha256
from typing import Any, Literal, Protocol

import msgspec
from attrs import field, frozen

from wazuh_comms_trio.backends.agent_orders import AgentOrder
from wazuh_comms_trio.backends.presence import PresenceStore
from wazuh_comms_trio.errors import EngineRefused

# --- agents -----------------------------------------------------------------------------------------------------------


@frozen
class Agent:
    """One enrolled agent. ``key_hash`` is base64(16 bytes of salt + PBKDF2-HMAC-SHA256(key, salt, 100 000 rounds))."""

    id: str
    name: str
    key_hash: str = field(repr=False)
    type: str | None = None
    version: str | None = None
    groups: tuple[str, ...] = ()
    host: Mapping[str, Any] = field(factory=dict)
    status: Literal["active", "disconnected"] = "disconnected"
    last_login: float | None = None

    @property
    def fingerprint(self) -> str:
        """Of the stored key hash, 16 hex digits: another one after each rekeying or enrolment (the salt is random)."""
        return sha256(self.key_hash.encode()).hexdigest()[:16]


class AgentRegistry(Protocol):
    """The agents that may talk to this server."""

    async def get(self, agent_id: str) -> Agent | None:
        """Reads an agent fresh from the store."""
        ...

    async def lookup(self, agent_id: str) -> Agent | None:
        """For every request of an agent: as ``get``, but may come from a cache that notices removal and rekeying in
        time (embedded: at once, also when another process did it; ``backend: wazuh``: within ``token.revocation``).
        Cheap; mostly doesn't block.
        """
        ...

    async def revoked(self, agents: Mapping[str, str]) -> Collection[str]:
        """The ids, of these (id -> fingerprint when their token was checked), that are gone or rekeyed now. For parked
        polls, some hundred in a call.
        """
        ...

    def may_be_served_unread(self, agent_id: str, fingerprint: str) -> bool:
        """Whether that agent with a token of that fingerprint is served while the registry can't be read: not where it
        is known here to be gone or rekeyed, nor by a registry whose removals count at once. No I/O.
        """
        ...

    async def changed(self) -> Collection[str] | None:
        """The agents that were removed, rekeyed or changed since the last call, by any process, and perhaps others.
        None: any may have been. For parked polls: called about twice a second; one caller.
        """
        ...

    async def add(self, agent: Agent) -> None:
        """Adds an agent. Raises ``AgentExists``."""
        ...

    async def remove(self, agent_id: str) -> bool:
        """False when there was no such agent. Its pending commands become ``failed`` (``agent removed``)."""
        ...

    async def rekey(self, agent_id: str, key_hash: str) -> bool:
        """Gives an agent another key hash; False when there is no such agent."""
        ...

    async def set_groups(self, agent_id: str, groups: Sequence[str]) -> bool: ...

    async def record_login(self, agent_id: str, when: float) -> None:
        """Sets ``last_login`` and status ``active``. Needn't be durable when it returns; a failure is logged, not
        raised: it must not fail the log-in.
        """
        ...

    async def list(self) -> Sequence[Agent]: ...

    def pages(self, order: AgentOrder = "name", *, reverse: bool = False) -> AsyncGenerator[Sequence[Agent], None]:
        """All agents as ``in_order`` has them, some hundred at a time; of what changes meanwhile either state."""

    async def members(self, group: str) -> Sequence[str]:
        """The ids of a group's agents; the group ``all`` has every agent."""

    async def named(self, name: str) -> Sequence[str]:
        """The ids, sorted, of the agents that have exactly this name."""


# --- events -----------------------------------------------------------------------------------------------------------


class DocumentOperation(msgspec.Struct, frozen=True, gc=False):
    """One write to the state index. ``body`` is one JSON object as UTF-8 bytes, already complete (agent metadata merged
    in): the document for ``create``, the partial document for ``update`` (objects merge deeply, other values replace),
    None for ``delete``.

    ``plain``: its maker has checked that the body is such an object, on one line, and that the id is short ASCII that
    stands in JSON as it is. No store has to look again.

    ``own``: the document is its agent's alone and follows it: a ``create`` of what exists replaces it, an ``update`` of
    what doesn't makes it.

    ``expected``: the document's version, ``absent`` for one that isn't there: the operation is applied to exactly that,
    and is 412 otherwise. Empty: to whatever is there. ``refused``: why it can never be applied: it is refused with that
    in its turn, so that its result knows what the document is then.
    """

    action: Literal["create", "update", "delete"]
    index: str
    document_id: str
    body: bytes | None = None
    plain: bool = False
    own: bool = False
    expected: str = ""
    refused: str = ""


class Outcome(StrEnum):
    DONE = "done"  # an ordinary result, 404 and 409 of a document included
    REFUSED = "refused"  # never: the document is malformed; quarantine
    PASSING = "passing"  # not now: try again
    FULL = "full"  # a quota has no room, and won't have soon: the agent comes again


@frozen
class ItemResult:
    """The outcome of one operation. ``result``: ``created``, ``updated``, ``deleted``, ``noop``, ``not_found``, or the
    error's reason. ``version``: of one that was refused or that a document stood against, what the document was then,
    as ``DocumentOperation.expected`` takes it; empty where that isn't known. ``cause``: what an error's reason comes
    from, where more is known than the reason says.
    """

    status: int
    result: str
    outcome: Outcome = Outcome.DONE
    version: str = ""
    cause: str = ""

    @property
    def whole_reason(self) -> str:
        return f"{self.result}: {self.cause}" if self.cause else self.result


class EventIndex(Protocol):
    """Where stateful events go. It may have a method ``probe`` besides, without arguments, as ``Engine`` may: raises
    ``BackendUnavailable``, with a sentence, when it could take nothing now. Cheap, and leaves nothing behind; called
    about once a second."""

    async def bulk(
        self,
        operations: Sequence[DocumentOperation],
        *,
        boundaries: Sequence[int] = (),
        is_open: Callable[[int], bool] | None = None,
    ) -> Sequence[ItemResult]:
        """Applies the operations in order; the results stand in the same positions. A ``create`` of an existing id is
        409, unless the content is equal: then 200 ``noop``. An ``update`` of a missing one is 404 (its reason as text),
        a ``delete`` 404 ``not_found``. Of an ``own`` document such a ``create`` replaces it, 200 ``updated``, and such
        an ``update`` makes it, 201 ``created``. ``boundaries``: the positions at which packets begin; where calls are
        limited in size, they are cut there. ``is_open``: whether somebody still waits for the operation at a position:
        where a store takes a second step, to replace or to make an own document, it asks before it, and the embedded
        one before it writes at all, in a thread. Raises ``BackendUnavailable`` when nothing can be said of the whole.
        """
        ...

    async def get(self, index: str, document_id: str) -> bytes | None: ...

    async def versions(self, documents: Sequence[tuple[str, str]]) -> Sequence[str]:
        """The versions of these documents (index and id) as ``DocumentOperation.expected`` takes them, by position;
        empty where one can't be known. Raises ``BackendUnavailable``."""
        ...


# --- commands ---------------------------------------------------------------------------------------------------------

CommandStatus = Literal["pending", "sent", "success", "failed"]


@frozen
class Target:
    type: Literal["agent", "group", "server"]
    id: str


@frozen
class Action:
    name: str
    version: str | None = None
    args: Mapping[str, Any] | None = None


@frozen
class CommandResult:
    """``code`` as agents report it: 0 success, 1 failure, 2 in progress, 3 timeout, 4 unknown."""

    code: int | None = None
    message: str | None = None
    data: Any = None


@frozen
class Command:
    """One command. ``timeout`` in seconds counts from ``created_at`` while pending, from ``sent_at`` once sent."""

    document_id: str
    target: Target
    action: Action
    timeout: float = 100
    request_id: str | None = None
    order_id: str | None = None
    source: str | None = None
    user: str | None = None
    status: CommandStatus = "pending"
    result: CommandResult | None = None
    created_at: float = 0.0
    sent_at: float | None = None


@frozen
class CommandReport:
    """An agent's word on a command: an update of ``command.result``. ``agent_id`` is the reporting agent's.
    ``is_received``: the agent has the command; else the server says that a pending one fails, undeliverable."""

    agent_id: str
    document_id: str
    result: CommandResult
    is_received: bool = True


class CommandStore(Protocol):
    """Commands, and which node has them now. A *claim* is this node's exclusive right to offer a command."""

    #: True when commands posted to the local command server are this store's to keep (embedded); False when they stay
    #: the poster's.
    keeps_posted: bool

    async def add(self, commands: Sequence[Command]) -> Sequence[Command]:
        """Stores commands (idempotent by ``document_id``: what is there stays) and returns them as stored, in order. A
        group's command is expanded: one child per member (``<parent>_<uuid>``, same order and request id), the parent
        marked ``sent``.
        """

    async def wait_news(self) -> Collection[str]:
        """Waits until some agents may have pending commands that no node has claimed; returns their ids. One caller."""

    async def claim(self, agent_ids: Collection[str]) -> Sequence[Command]:
        """Claims what is pending for these agents, oldest first, at most 100 an agent. No claim is given twice until
        released.
        """

    async def mark_sent(self, document_ids: Collection[str]) -> None:
        """The delivery was confirmed. (Embedded: a delivered ``set-group`` is applied to the registry here.)"""

    async def release(self, document_ids: Collection[str]) -> None:
        """The delivery of these commands wasn't confirmed: they are pending again, unclaimed."""

    async def report(self, reports: Sequence[CommandReport]) -> Sequence[ItemResult]:
        """Results by position. ``refused`` (status 400) unless the command was sent to that very agent; of one that
        isn't there 404, and nothing of it is kept. Code 0 makes it
        ``success``, 2 leaves it ``sent``, 1, 3 and 4 make it ``failed``. Repeating an equal report is a success.
        """
        ...

    async def expire(self) -> None:
        """Ends overdue commands: those that are pending past their timeout become ``failed`` with a reason. Sent and
        not answered within it: ``failed``, ``no answer``. A late report still counts.
        """

    async def get(self, document_id: str) -> Command | None: ...

    async def list(
        self,
        *,
        status: CommandStatus | None = None,
        agent_id: str | None = None,
        limit: int = 1000,
        children: bool = True,
    ) -> Sequence[Command]:
        """Commands, the newest first. ``children`` False: without those that a group's command became."""

    def pages(
        self, *, status: CommandStatus | None = None, agent_id: str | None = None, children: bool = True
    ) -> AsyncGenerator[Sequence[Command], None]:
        """As ``list`` without a limit, some hundred at a time; of what changes meanwhile either state."""

    async def children(self, parents: Collection[str]) -> Sequence[Command]:
        """The children of these groups' commands (document ids), in no order. An id that is no group's has none."""

    async def cancel(self, document_id: str) -> Command | None:
        """Cancels a pending command, which becomes ``failed`` (``cancelled``), and of a group's command those of its
        children that are pending; returns it as it is then, None when there is none."""


# --- the engine -------------------------------------------------------------------------------------------------------


@frozen
class EngineReply:
    status: int
    body: bytes
    content_type: str = "application/json"


@frozen
class ConsumedBody:
    """What an engine had taken of a body that it refused: ``size`` bytes from ``start`` on of the file behind
    ``descriptor``, which is the receiver's to close (None: there is no file), then ``rest``."""

    descriptor: int | None
    start: int
    size: int
    rest: bytes


class BodyRefused(EngineRefused):
    """``EngineRefused`` of an engine that keeps what it had taken of the body."""

    def __init__(self, message: str, consumed: ConsumedBody) -> None:
        super().__init__(message)
        self.consumed = consumed


class Engine(Protocol):
    """Where stateless events and scans go."""

    #: What ``send_events`` raises for a refused body is ``BodyRefused``: its caller needs no copy.
    keeps_refused: bool

    async def send_events(self, body: AsyncIterable[bytes], *, agent_id: str, length: int | None) -> None:
        """Streams one request's body, unchanged; returns when the engine has taken all of it. ``body`` stays the
        caller's, to read on and to close; what it raises goes through. Raises ``EngineRefused`` (never: quarantine it),
        ``EngineTimeout``, ``EngineSocketError``, ``EngineRequestError``, ``StorageFull``, ``BackendUnavailable``.
        """
        ...

    async def scan(self, request: bytes) -> EngineReply:
        """One vulnerability scan request (JSON). The engine's status and body, whatever they are; raises as above for
        no answer.
        """
        ...


# --- files ------------------------------------------------------------------------------------------------------------


class StoredFile(Protocol):
    """One file, open for reading; ``size`` in bytes holds for what ``chunks`` yields. A reader that stops early closes
    the generator."""

    size: int

    def chunks(self) -> AsyncGenerator[bytes, None]: ...


class FileStore(Protocol):
    def open_file(self, name: str) -> AbstractAsyncContextManager[StoredFile]:
        """Raises ``FileNameHasFolders``, ``FileIsFolder`` or ``FileMissing`` on entering (a link that leads out of the
        folder, a name too long, and what isn't a regular file are missing).
        """
        ...


# --- all of them ------------------------------------------------------------------------------------------------------


@frozen
class Backends:
    """What ``open_backends`` opens and the worker's tree is built on."""

    agents: AgentRegistry
    events: EventIndex
    commands: CommandStore
    engine: Engine
    files: FileStore
    presence: PresenceStore
