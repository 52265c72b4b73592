"""Documents as programs write them that speak CBOR to the indexer, sound or not."""

from __future__ import annotations

import http.client
import struct
from typing import Any

#: Values that an OpenSearch takes in a field that it doesn't look into, and can't give as JSON.
NOT_GIVEN: dict[str, Any] = {
    "bytes": {"s": b"\xff\xfe"},
    "cut": {"s": b"ab\xc3"},
    "surrogate": {"s": "\ud800x"},
    "low": {"s": "\udc00"},
    "name": {"\ud800x": 1},
}


def encode(value: Any) -> bytes:
    """``bytes`` are a text's bytes, whatever they are; so is half of a surrogate pair."""
    match value:
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return _head(0, value)
        case float():
            return b"\xfb" + struct.pack(">d", value)
        case bytes():
            return _head(3, len(value)) + value
        case str():
            return encode(value.encode("utf-8", "surrogatepass"))
        case list():
            return _head(4, len(value)) + b"".join(map(encode, value))
        case dict():
            return _head(5, len(value)) + b"".join(encode(name) + encode(each) for name, each in value.items())
    raise TypeError(value)


def _head(kind: int, number: int) -> bytes:
    return bytes([kind << 5 | 26]) + struct.pack(">I", number)


def put(port: int, index: str, document_id: str, document: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        target = f"/{index}/_doc/{document_id}?refresh=true"
        connection.request("PUT", target, encode(document), {"Content-Type": "application/cbor"})
        reply = connection.getresponse()
        assert reply.status in (200, 201), reply.read()
    finally:
        connection.close()
