"""The first line of an events' body: who the agent says it is. Read for stateful and stateless bodies alike."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

import msgspec
from attrs import field, frozen

from wazuh_comms_trio.errors import MalformedBody
from wazuh_comms_trio.foundation.caches.bounded_cache import BoundedCache
from wazuh_comms_trio.metrics.refusal_log import RefusalLog

__all__ = ["METADATA_LIMIT", "DuplicateKey", "Metadata", "check_agent", "has_duplicate_keys", "read_metadata"]

#: The longest metadata line, bytes. Real ones have some 400.
METADATA_LIMIT: Final = 65536

# An agent sends the same line with every request: the last few thousand needn't be read again. Only short ones are
# kept, so that this is at most 2048 * (2 * 2 KiB + ~0.5 KiB), 9 MiB; usually less than 3.
_REMEMBERED: Final = 2048
_REMEMBERED_BYTES: Final = 2048

_BLANKS: Final = b" \t\r\n"
_decode: Final = msgspec.json.Decoder().decode


@frozen
class Metadata:
    """A sound metadata line. ``line`` without blanks around; ``agent_id`` as the agent wrote it; ``keys`` of the
    outermost object; ``prefix``: the line without its closing brace, ready to be a document's beginning."""

    line: bytes = field(repr=False)
    agent_id: str
    keys: frozenset[str]
    prefix: bytes = field(repr=False)


class DuplicateKey(ValueError):
    """An object has a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateKey
    return members


def has_duplicate_keys(text: bytes) -> bool:
    """Whether some object in ``text``, which is sound JSON, has a key twice. Raises ``RecursionError`` and
    ``ValueError`` where Python's reader gives up: too deep, numbers of thousands of digits."""
    try:
        json.loads(text.decode(), object_pairs_hook=_unique)
    except DuplicateKey:
        return True
    return False


def _read(line: bytes) -> Metadata:
    if len(line) > METADATA_LIMIT:
        raise MalformedBody(f"The metadata line is longer than {METADATA_LIMIT} bytes")
    try:
        line.decode()  # the decoder doesn't look at the encoding of what it skips
        value = _decode(line)
        duplicate = _has_duplicates(line, value)
    except msgspec.ValidationError:  # it is JSON: nothing else is asked of it here than to fit in
        raise MalformedBody("A number in the metadata line is out of range") from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise MalformedBody("The metadata line is not a JSON object") from None
    if not isinstance(value, dict):
        raise MalformedBody("The metadata line is not a JSON object")
    if duplicate:
        raise MalformedBody("A key stands twice in the metadata line")
    agent = value.get("agent")
    if not isinstance(agent, dict):
        raise MalformedBody("The metadata line has no agent")
    agent_id = agent.get("id")
    if not isinstance(agent_id, str):
        raise MalformedBody("The metadata line's agent has no id")
    if any(key.startswith("agent.") for key in value):
        # An indexer takes it for a member of the agent, which would be in its documents twice.
        raise MalformedBody("A name in the metadata line reaches into the agent by dots")
    return Metadata(line, agent_id, frozenset(value), line[:-1].rstrip(_BLANKS))


def _has_duplicates(line: bytes, value: Any) -> bool:
    # Decoding drops the first of two equal keys, and with it at least two quotation marks.
    if b"\\" not in line and line.count(b'"') == msgspec.json.encode(value).count(b'"'):
        return False
    return has_duplicate_keys(line)


_remembered: BoundedCache[bytes, Metadata] = BoundedCache(_REMEMBERED)


def read_metadata(line: bytes) -> Metadata:
    """Reads a metadata line. Raises ``MalformedBody``. A pure function that remembers."""
    line = line.strip(_BLANKS)
    known = _remembered.get(line)
    if known is not None:
        return known
    metadata = _read(line)
    if len(line) <= _REMEMBERED_BYTES:
        _remembered.put(line, metadata)
    return metadata


def check_agent(
    metadata: Metadata, agent_id: str, policy: Literal["refuse", "log", "allow"], refusals: RefusalLog | None = None
) -> None:
    """The metadata's agent must be the token's, ``agent_id``, unless the operator decided otherwise
    (``events.foreign_agent``), and ``refusals`` may be told. Raises ``MalformedBody``."""
    if policy == "allow" or metadata.agent_id.lower() == agent_id:
        return
    if policy == "refuse":
        raise MalformedBody("Agent id does not match the token")
    if refusals is not None:
        text = "events of agent %.64r came with the token of %s"
        refusals.refused("bodies of events of another agent", text, metadata.agent_id, agent_id)
