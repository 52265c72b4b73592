"""The key that signs a node's tokens, and those that it trusts besides, over generations and restarts: the supervisor's
real ``NodeKeys``, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import trio
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.simulation.determinism import EPOCH
from wazuh_comms_trio.config.check import public_half
from wazuh_comms_trio.config.models import Config, Token
from wazuh_comms_trio.daemon.remembered_keys import LONGEST_GRACE, KeyMemory
from wazuh_comms_trio.daemon.supervisor.hub import Hub
from wazuh_comms_trio.daemon.supervisor.messages import WorkerConfig
from wazuh_comms_trio.daemon.supervisor.node_keys import NodeKeys
from wazuh_comms_trio.daemon.worker.process import lifetimes
from wazuh_comms_trio.services.authentication.tokens import TokenKeys

__all__ = ["SigningKeys", "another_key"]

_FILE: Final = Path("/signing.key")
_FOLLOWING: Final = Path("/following.pem")


@cache
def another_key() -> bytes:
    """A private key in PEM; the same for all runs of this process."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class SigningKeys:
    """Of one node. ``private`` signs from the next generation on, and ``following`` is trusted then, public, if there
    is one."""

    def __init__(self, private: bytes, folder: Path) -> None:
        self.private = private
        self.following: bytes | None = None
        self._folder = folder

    def begin_life(self, hub: Hub) -> NodeKeys:
        """The node starts."""
        self._node_keys = NodeKeys(self._file(), hub)
        return self._node_keys

    def configured(self, config: Config) -> Config:
        api = config.communications_api
        verify_keys = () if self.following is None else (_FOLLOWING,)
        return evolve(config, communications_api=evolve(api, token=Token(private_key=_FILE, verify_keys=verify_keys)))

    def files(self) -> Mapping[str, str]:
        """What a reload reads."""
        files = {str(_FILE): self.private.decode("latin-1")}
        if self.following is not None:
            files[str(_FOLLOWING)] = self.following.decode("latin-1")
        return files

    def for_worker(self, first: WorkerConfig) -> tuple[TokenKeys, Mapping[str, float]]:
        """What a worker that starts now has, and for how many seconds each earlier key counts."""
        files = first.materials
        others = [files[str(_FOLLOWING)].encode()] if str(_FOLLOWING) in files else []
        earlier = [pem.encode() for pem in first.earlier.public_keys]
        keys = TokenKeys.from_pem(files[str(_FILE)].encode(), others=others, earlier=earlier)
        keys.revoke(self.revoked().keys())
        return keys, lifetimes(first.earlier)

    def keep(self) -> None:
        """What the present key signs is good for long: another one follows."""
        assert self._file().keep(public_half(self.private).decode(), LONGEST_GRACE)

    async def revoke(self, kid: str, *, is_up: bool) -> bool:
        """As the operator's tool does: by the supervisor, or in the file while the node is down. Returns whether that
        is done."""
        if not is_up:
            return self._file().revoke({kid: _wall_clock()})
        return bool((await self._node_keys.revoke(kid))["revoked"])

    def revoked(self) -> Mapping[str, float]:
        return self._file().read().revoked

    def _file(self) -> KeyMemory:
        return KeyMemory(self._folder, wall_clock=_wall_clock)


def _wall_clock() -> float:
    return EPOCH + trio.current_time()
