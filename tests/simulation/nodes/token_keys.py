"""The key that signs a node's tokens, and those that it trusts besides, over generations and restarts: the supervisor's
real ``NodeKeys``, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.simulation.determinism import EPOCH
from wazuh_comms_trio.config.check import public_half
from wazuh_comms_trio.config.models import CommunicationsApi, Token
from wazuh_comms_trio.daemon.remembered_keys import LONGEST_GRACE, KeyMemory
from wazuh_comms_trio.daemon.supervisor.hub import Hub
from wazuh_comms_trio.daemon.supervisor.node_keys import NodeKeys
from wazuh_comms_trio.services.authentication.tokens import TokenKeys

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Signing", "SigningKeys", "another_key"]

_FILE = Path("/signing.key")


@cache
def another_key() -> bytes:
    """A private key in PEM; the same for all runs of this process."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class SigningKeys:
    """``private`` signs from the next generation on, and ``following`` is trusted then, public, if there is one."""

    def __init__(self, world: World, settings: CommunicationsApi, folder: Path) -> None:
        self.private = settings.ssl.key.read_bytes()
        self.following: bytes | None = None
        self._world = world
        self._settings = evolve(settings, token=Token(private_key=_FILE))
        self._folder = folder

    def begin_life(self, hub: Hub) -> None:
        """The node starts."""
        self._node_keys = NodeKeys(self._file(), hub)

    async def next_generation(self) -> Signing:
        """What the workers of one are given."""
        files = {str(_FILE): self.private.decode("latin-1")}
        private, following = self.private, self.following
        earlier = await self._node_keys.before_generation(self._settings, files)
        return Signing(self, private, () if following is None else (following,), earlier)

    async def note_signing(self, private: bytes) -> None:
        await self._node_keys.signed_by(public_half(private).decode())

    def keep(self) -> None:
        """What the present key signs is good for long: another one follows."""
        assert KeyMemory(self._folder, wall_clock=self._wall_clock).keep(
            public_half(self.private).decode(), LONGEST_GRACE
        )

    async def revoke(self, kid: str, *, is_up: bool) -> bool:
        """As the operator's tool does: by the supervisor, or in the file while the node is down. Returns whether that
        is done."""
        if not is_up:
            return self._file().revoke({kid: self._wall_clock()})
        return bool((await self._node_keys.revoke(kid))["revoked"])

    def revoked(self) -> Mapping[str, float]:
        return self._file().read().revoked

    def _file(self) -> KeyMemory:
        return KeyMemory(self._folder, wall_clock=self._wall_clock)

    def _wall_clock(self) -> float:
        return EPOCH + trio.current_time()


class Signing:
    """One generation's keys."""

    def __init__(
        self, keys: SigningKeys, private: bytes, others: Sequence[bytes], earlier: Sequence[tuple[str, float]]
    ) -> None:
        self._private = private
        self._is_noted = False
        self._keys = keys
        self._others = others
        self._earlier = earlier

    def for_worker(self) -> tuple[TokenKeys, Mapping[str, float]]:
        """What a worker that starts now has, and for how many seconds each earlier key counts."""
        now = trio.current_time()
        lifetimes = {pem: until - now for pem, until in self._earlier if until > now}
        keys = TokenKeys.from_pem(self._private, others=self._others, earlier=[pem.encode() for pem in lifetimes])
        keys.revoke(self._keys.revoked().keys())
        return keys, lifetimes

    async def note_serving(self) -> None:
        """A worker of the generation serves: the first one is noted."""
        if not self._is_noted:
            self._is_noted = True
            await self._keys.note_signing(self._private)
