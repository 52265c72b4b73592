"""The parts of an index, each of which may refuse everything for a while."""

from zlib import crc32

__all__ = ["SHARDS", "shard_of"]

SHARDS = 4


def shard_of(document_id: str) -> int:
    return crc32(document_id.encode()) % SHARDS
