"""Documents that the indexer itself can't give: one that was written as CBOR, SMILE or YAML, and whose text makes no
JSON. An answer with such a document in it fails as a whole. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from wazuh_comms_trio.backends.opensearch.client.error_details import ErrorDetail
from wazuh_comms_trio.http.client.connection import HttpReply

#: Types of such errors, however deep among the causes; what a query's own fault may be called, too.
_TYPES: Final = re.compile(
    rb'"type":"(?:(?:x_content_|xcontent_)?(?:parse|generation)_exception|(?:json|stream|cbor|smile|yaml)_\w+_exception)"'
)
#: The field of an answer that says what was read of a document.
_OF_ONE: Final = re.compile(r"(?:Failed to get id |Error filtering source|Failed to parse content)")


def may_be_content(reply: HttpReply) -> bool:
    """Whether an answer failed perhaps for a document in it: the same without documents' texts says."""
    return reply.status in (400, 500) and _TYPES.search(reply.body) is not None


def is_content(error: ErrorDetail) -> bool:
    """Whether what went wrong with one document is its text, which won't pass."""
    return _TYPES.search(msgspec.json.encode(error)) is not None or _OF_ONE.match(error.reason or "") is not None


def why_not_given(error: ErrorDetail) -> str:
    """Why the indexer can't give a document, for the log and the operator."""
    root = [error.reason or error.type, *error.causes()][-1]
    return f"the indexer can't give it: {root.splitlines()[0]}"
