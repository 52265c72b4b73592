"""Operations as the lines of bulk bodies, as pure functions. Documents stay the bytes that they are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import msgspec
from attrs import define, field

from wazuh_comms_trio.backends.document_rules import NotADocument, read_object, refused
from wazuh_comms_trio.backends.interfaces import DocumentOperation, ItemResult
from wazuh_comms_trio.backends.opensearch.client.bulk import around_id, create_line, delete_line, update_line
from wazuh_comms_trio.backends.opensearch.client.queries import LONGEST_ID, is_possible_id

#: As a number it is found five times faster than as bytes.
_NEWLINE: Final = 10
#: Checks the grammar and decodes nothing.
_check_json: Final = msgspec.json.Decoder(msgspec.Raw).decode


@define
class Encoded:
    """What can be sent, by item: its action line and the line after it (None: it has none), both without their ends,
    and its position among the operations. ``refused``: by position, what would sink a whole call, or would be read
    differently than it was meant."""

    heads: list[bytes] = field(factory=list)
    bodies: list[bytes | None] = field(factory=list)
    positions: list[int] = field(factory=list)
    refused: dict[int, ItemResult] = field(factory=dict)

    def __len__(self) -> int:
        return len(self.heads)

    def sizes(self) -> list[int]:
        """Bytes of each item on the wire."""
        pairs = zip(self.heads, self.bodies, strict=True)
        return [len(head) + 1 if body is None else len(head) + len(body) + 2 for head, body in pairs]

    def wire(self, start: int, stop: int) -> bytes:
        """These items' part of a bulk body, or all of one."""
        lines: list[bytes | None] = [b""] * (2 * (stop - start) + 1)  # the last one for the last line's end
        lines[0:-1:2] = self.heads[start:stop]
        lines[1::2] = bodies = self.bodies[start:stop]
        return b"\n".join([line for line in lines if line is not None] if None in bodies else lines)  # type: ignore[arg-type]  # none is None

    def item_boundaries(self, boundaries: Sequence[int]) -> list[int]:
        """From positions among the operations to positions among the items."""
        return [bisect_left(self.positions, position) for position in boundaries] if self.refused else list(boundaries)


def encode_all(operations: Sequence[DocumentOperation]) -> Encoded:
    """The lines of many operations; a thousand plain ones take 0.15 ms."""
    encoded = Encoded()
    heads, bodies, positions = encoded.heads, encoded.bodies, encoded.positions
    action = index = before = after = ""
    for position, operation in enumerate(operations):
        body = operation.body
        if operation.plain:
            if operation.index is not index or operation.action is not action:
                action, index = operation.action, operation.index
                before, after = around_id(action, index)
            head = f"{before}{operation.document_id}{after}".encode()
            if action == "update" and body is not None:
                body = b'{"doc":%b}' % body
        else:
            lines = encode(operation)
            if isinstance(lines, ItemResult):
                encoded.refused[position] = lines
                continue
            head, body = lines
        heads.append(head)
        bodies.append(body)
        positions.append(position)
    return encoded


def encode(operation: DocumentOperation) -> tuple[bytes, bytes | None] | ItemResult:
    """The lines of one operation that may be anything, or why it can't be sent."""
    if not is_possible_id(operation.document_id):
        return refused(f"the document id is empty, longer than {LONGEST_ID} bytes, or no text")
    if operation.refused:
        return refused(operation.refused)
    if operation.action == "delete":
        return delete_line(operation.index, operation.document_id)[:-1], None
    body = operation.body if operation.body is not None else b""
    if not _is_object(body):
        try:
            read_object(body)
        except NotADocument as exc:
            return refused(str(exc))
    if _NEWLINE in body:  # between its values, since it is valid JSON
        body = msgspec.json.format(body, indent=-1)
    if operation.action == "create":
        return create_line(operation.index, operation.document_id)[:-1], body
    return update_line(operation.index, operation.document_id)[:-1], b'{"doc":%b}' % body


def _is_object(body: bytes) -> bool:
    """Whether a text is an object, told quickly; what it doubts is looked at more closely."""
    try:
        _check_json(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    return body.startswith(b"{") and body.isascii()
