"""What tokens say that were read before: their signatures needn't be checked again."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from msgspec.structs import replace

from wazuh_comms_trio.foundation.caches.bounded_cache import BoundedCache
from wazuh_comms_trio.services.authentication.tokens import AUDIENCE, ISSUER, Claims

__all__ = ["TokenMemory"]

#: Tokens of one agent at a time: copies of a machine have one each.
_OF_AN_AGENT: Final = 4


class TokenMemory:
    """The last few tokens of each agent, less those that had expired when a newer one was made; so there are about as
    many as agents, some 500 bytes each, and ``size`` at most."""

    def __init__(self, size: int) -> None:
        self._claims: BoundedCache[bytes, Claims] = BoundedCache(size)
        self._of_agent: dict[str, tuple[bytes, ...]] = {}  # digests of tokens, those that were read last at the end

    def __len__(self) -> int:
        return len(self._claims)

    def get(self, token: bytes) -> Claims | None:
        return self._claims.get(sha256(token).digest())

    def put(self, token: bytes, claims: Claims) -> None:
        """Remembers a token; ``claims`` with the issuer and audience of all our tokens."""
        digest = sha256(token).digest()
        claims = replace(claims, iss=ISSUER, aud=AUDIENCE)  # one text for all of them
        kept = []
        for other in self._of_agent.get(claims.uuid, ()):
            known = self._claims.get(other)
            if known is not None and known.exp > claims.made and other != digest:
                kept.append(other)
            else:
                self._claims.drop(other)
        for other in kept[: 1 - _OF_AN_AGENT]:
            self._claims.drop(other)
        self._of_agent[claims.uuid] = (*kept[1 - _OF_AN_AGENT :], digest)
        gone = self._claims.put(digest, claims)
        if gone is not None:
            self._forget(gone[1].uuid, gone[0])

    def drop(self, token: bytes) -> None:
        digest = sha256(token).digest()
        claims = self._claims.get(digest)
        if claims is not None:
            self._claims.drop(digest)
            self._forget(claims.uuid, digest)

    def _forget(self, uuid: str, digest: bytes) -> None:
        left = tuple(other for other in self._of_agent[uuid] if other != digest)
        if left:
            self._of_agent[uuid] = left
        else:
            del self._of_agent[uuid]
