"""What the supervisor and its workers say to each other, a struct for each kind of message.

A message is a JSON object; ``type`` names its kind (the struct's tag), the rest are its fields. The two ends may be of
different versions, since after an upgrade an old supervisor starts new workers. So a kind or a field that an end
doesn't know is ignored, a new field has a default, and the names on the wire stay, whatever Python calls them.

Durations are in seconds, and relative: the processes' clocks aren't compared. A command is the JSON object that the
command socket is posted; what an end doesn't know of it is passed on.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType, field

__all__ = ["JsonObject", "Message", "Unknown", "decode", "encode", "from_json", "to_json"]

JsonObject: TypeAlias = dict[str, Any]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Each kind is a subclass."""


# --- a worker's life


class SharedListeners(msgspec.Struct, frozen=True, kw_only=True):
    """Descriptors of listening sockets, which the worker inherits."""

    api: list[int]
    enrollment: list[int]


class EarlierKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Public keys (PEM) that signed tokens before; their tokens are good for ``seconds`` more. ``lifetimes``: each
    one's seconds, in the same order."""

    public_keys: list[str]
    seconds: float
    lifetimes: list[float] | UnsetType = UNSET


class WorkerConfig(Message, frozen=True, kw_only=True, tag="config"):
    """To a worker, its first message. ``text`` is the configuration, which was read from ``file``; ``materials`` are
    the key files, by path; with ``duty`` the supervisor elects a leader."""

    file: str
    text: str
    listeners: SharedListeners
    materials: dict[str, str]
    earlier: EarlierKeys
    duty: bool = False


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """To the hub: the worker serves. ``public_key`` (PEM) is that of its tokens' key; with ``duty`` it may be the
    leader."""

    public_key: str
    pid: int | UnsetType = UNSET
    duty: bool = False


class Failed(Message, frozen=True, kw_only=True, tag="failed"):
    """To the hub: the worker couldn't start, or failed."""

    reason: str


class Stop(Message, frozen=True, kw_only=True, tag="stop"):
    """To a worker: it answers its long polls over ``spread`` seconds, gives requests ``grace`` more (None:
    ``shutdown.grace``), and ends."""

    spread: float
    grace: float | None = None


class ShortenStop(Message, frozen=True, kw_only=True, tag="shorten"):
    """To a worker: it answers its long polls now, and gives requests ``shutdown.grace``."""


class HurryStop(Message, frozen=True, kw_only=True, tag="hurry"):
    """To a worker: it gives up what is still in flight."""


class Drain(Message, frozen=True, kw_only=True, tag="drain"):
    """To a worker: while ``on``, its ``ready`` is 503, whatever its stores say."""

    on: bool


# --- keys that sign tokens


class TrustKey(Message, frozen=True, kw_only=True, tag="trust"):
    """To a worker: tokens of this public key (PEM) are good from now on; the next generation signs with it."""

    public_key: str


class RevokeKeys(Message, frozen=True, kw_only=True, tag="revoke"):
    """To a worker: nothing that the keys of these ids signed is good any more. Each has the moment when it was revoked
    (epoch seconds)."""

    keys: dict[str, float]


# --- health


class HealthRequest(Message, frozen=True, kw_only=True, tag="ask"):
    """To a worker, which answers with a ``HealthReport``; with ``look`` once it has looked at its stores."""

    look: bool | UnsetType = UNSET


class HealthReport(Message, frozen=True, kw_only=True, tag="beat"):
    """To the hub. ``report`` is a ``daemon.status.WorkerReport`` as JSON: the supervisor passes on what it doesn't
    know of it. ``looked``: the worker was asked to look at its stores, and has."""

    report: JsonObject
    looked: bool | UnsetType = UNSET


# --- metrics


class MetricsRequest(Message, frozen=True, kw_only=True, tag="count"):
    """To a worker, which answers with a ``MetricsReport``."""


class MetricsReport(Message, frozen=True, kw_only=True, tag="counted"):
    """To the hub, also as a worker's last message: a snapshot of ``metrics.counting``."""

    snapshot: JsonObject


# --- the operators' listener


class OperatorsConfig(Message, frozen=True, kw_only=True, tag="operators"):
    """To the operators' process, its first message: the listening socket's descriptor, the log's settings, with TLS
    the files' paths, and the bearer token that requests must have."""

    listener: int
    log: JsonObject
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    token: str | None = None


class NodeQuestion(Message, frozen=True, kw_only=True, tag="question"):
    """From the operators' process: ``about`` is ``metrics``, ``status`` or ``ready``."""

    number: int
    about: str


class NodeAnswer(Message, frozen=True, kw_only=True, tag="answer"):
    """To the operators' process."""

    number: int
    document: JsonObject


# --- what is known of an agent


class AgentQuestion(Message, frozen=True, kw_only=True, tag="agent"):
    """To a worker: what does it know of this agent?"""

    number: int
    agent: str


class AgentAnswer(Message, frozen=True, kw_only=True, tag="about"):
    """To the hub: as ``services.agent_journal`` says it, with ``parked`` polls and ``limits``."""

    number: int
    document: JsonObject


# --- leadership


class LeaderChange(Message, frozen=True, kw_only=True, tag="duty"):
    """To a worker: it is the leader now, or another worker is."""

    leader: bool = field(name="on")


class Finding(Message, frozen=True, kw_only=True, tag="finding"):
    """Through the hub to every other worker: what the leader found in the store that they share."""

    topic: str
    finding: JsonObject


class LeaderRequest(Message, frozen=True, kw_only=True, tag="wish"):
    """Through the hub to the leader: what a worker wants to be searched for."""

    topic: str
    request: JsonObject = field(name="wish")


# --- commands


class Post(Message, frozen=True, kw_only=True, tag="post"):
    """To a worker: store or hold these commands and say within ``seconds`` which were delivered. ``delivered``:
    document ids of those that were before, and for how long they count. ``sent``: since when the seconds count, by the
    monotonic clock, which all processes of the machine have."""

    number: int
    commands: list[JsonObject]
    delivered: dict[str, float]
    seconds: float | UnsetType = UNSET
    sent: float | UnsetType = UNSET


class PostTaken(Message, frozen=True, kw_only=True, tag="taken"):
    """To the hub: the worker has begun with a post."""

    number: int


class PostAnswer(Message, frozen=True, kw_only=True, tag="posted"):
    """To the hub: the commands of a post that were delivered, or why it failed."""

    number: int
    commands: list[JsonObject] | UnsetType = UNSET
    error: str | UnsetType = UNSET


class WithdrawPost(Message, frozen=True, kw_only=True, tag="unpost"):
    """To a worker: the hub waits for the answer no more."""

    number: int


class NewCommands(Message, frozen=True, kw_only=True, tag="news"):
    """Through the hub to every other worker: these agents may have new commands in the store."""

    agents: list[str]


class PollParked(Message, frozen=True, kw_only=True, tag="parked"):
    """Through the hub to every other worker: this agent's newest poll is at the sender; older ones end."""

    agent: str


class CommandsDelivered(Message, frozen=True, kw_only=True, tag="delivered"):
    """Through the hub, which remembers them, to every other worker: document ids, and for how long they count."""

    ids: dict[str, float]


class HoldCommands(Message, frozen=True, kw_only=True, tag="hold"):
    """Through the hub to every other worker: commands that were posted and that no store keeps."""

    commands: list[JsonObject]
    seconds: float


class WithdrawCommands(Message, frozen=True, kw_only=True, tag="withdraw"):
    """Through the hub to every other worker: the post of these held commands was answered."""

    ids: list[str]


class AcquireCommands(Message, frozen=True, kw_only=True, tag="acquire"):
    """To the hub: which of these held commands may the worker offer?"""

    number: int
    ids: list[str]


class CommandsGranted(Message, frozen=True, kw_only=True, tag="granted"):
    """To a worker, the answer to ``AcquireCommands``: it alone may offer these."""

    number: int
    ids: list[str]


class CommandsReturned(Message, frozen=True, kw_only=True, tag="returned"):
    """To the hub: the worker acquired these commands and didn't deliver them."""

    ids: list[str]


class CommandsFreed(Message, frozen=True, kw_only=True, tag="free"):
    """To a worker: these held commands may be acquired again."""

    ids: list[str]


# --- their JSON


class Unknown(msgspec.Struct, frozen=True):
    """A message of a kind that this version doesn't know, or (``problem``) one of a known kind that isn't as this
    version knows it."""

    kind: str
    problem: str | None = None


#: Every kind, by its name on the wire.
KINDS: Final[dict[str, type[Message]]] = {str(kind.__struct_config__.tag): kind for kind in Message.__subclasses__()}


def encode(message: Message) -> JsonObject:
    fields: JsonObject = msgspec.to_builtins(message)
    return fields


def to_json(message: Message) -> bytes:
    """A message as it goes over the wire. Strings with halves of surrogate pairs, which programs may post, are only
    written by the slower way, in ASCII."""
    try:
        return msgspec.json.encode(message)
    except UnicodeEncodeError:
        return json.dumps(encode(message)).encode()


def from_json(data: bytes) -> Message | Unknown:
    """Reads a message. Raises ``ValueError`` for what isn't one at all, ``RecursionError``."""
    try:
        fields = msgspec.json.decode(data)
    except ValueError:  # such halves, or numbers that are none
        fields = json.loads(data)
    return decode(fields)


def decode(fields: object) -> Message | Unknown:
    """Reads a message; ``fields`` is its JSON. Raises ``ValueError`` for what isn't a message at all."""
    if not isinstance(fields, dict) or not isinstance(kind := fields.get("type"), str):
        raise ValueError("not a message")  # noqa: TRY004  # it is a matter of the peer's data
    struct = KINDS.get(kind)
    if struct is None:
        return Unknown(kind)
    try:
        return msgspec.convert(fields, struct)
    except msgspec.ValidationError as error:
        return Unknown(kind, str(error))
