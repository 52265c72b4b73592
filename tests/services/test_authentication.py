"""Keys for tokens, tokens for agents; what is remembered, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import A1, A2, EPOCH, KEY, KEY_HASH, agent, gather, inline, trio_wall_clock
from tests.services.test_tokens import pem, sign
from wazuh_comms_trio.backends.interfaces import Agent
from wazuh_comms_trio.backends.memory.stores import MemoryAgents, MemoryBackends, memory_backends
from wazuh_comms_trio.errors import AgentUnknown, BackendUnavailable, InvalidKey, TokenExpired, TokenInvalid
from wazuh_comms_trio.services.authentication.authenticator import Authenticator
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key, key_matches, new_key
from wazuh_comms_trio.services.authentication.token_ages import life_at
from wazuh_comms_trio.services.authentication.tokens import LIFETIME, TokenKeys
from wazuh_comms_trio.testing.agent.client import token_expiry

T = TypeVar("T")
PRIVATE = ec.generate_private_key(ec.SECP256R1())
KEYS = TokenKeys.from_pem(pem(PRIVATE))


@attrs.define
class Blocking:
    """Counts what is run."""

    runs: int = 0
    running: int = 0
    most: int = 0
    takes: float = 0.0

    async def __call__(self, fn: Callable[..., T], *args: object) -> T:
        self.runs += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(self.takes)
            return fn(*args)
        finally:
            self.running -= 1


@attrs.define
class Setting:
    service: Authenticator
    backends: MemoryBackends
    blocking: Blocking


async def setting(*agents: str) -> Setting:
    backends = memory_backends(wall_clock=trio_wall_clock)
    for agent_id in agents or (A1,):
        await backends.agents.add(agent(agent_id))
    blocking = Blocking()
    service = Authenticator(backends.agents, KEYS, wall_clock=trio_wall_clock, run_blocking=blocking)
    return Setting(service, backends, blocking)


class TestKeys:
    def test_new_ones(self) -> None:
        keys = {new_key() for _ in range(100)}
        assert len(keys) == 100
        assert all(len(key) == 32 and key.isascii() and key.isalnum() for key in keys)

    def test_the_stored_form(self) -> None:
        import base64
        import hashlib

        raw = base64.b64decode(hash_key(KEY))
        assert raw[16:] == hashlib.pbkdf2_hmac("sha256", KEY.encode(), raw[:16], 100_000)
        assert len(raw) == 48

    def test_matching(self) -> None:
        assert key_matches(KEY, KEY_HASH)
        assert not key_matches(KEY[:-1], KEY_HASH)
        assert hash_key(KEY) != KEY_HASH
        assert key_matches("p\u00e4ss", hash_key("p\u00e4ss"))
        assert not key_matches("\ud800", KEY_HASH)

    @pytest.mark.parametrize("stored", ["", "nonsense!", "AAAA", KEY_HASH[:-4], KEY_HASH + "AAAA", "\u00e4" * 64])
    def test_a_stored_hash_that_is_none(self, stored: str) -> None:
        assert not key_matches(KEY, stored)


class TestAuthenticate:
    async def test_a_log_in(self, autojump_clock: MockClock) -> None:
        made = await setting()
        await trio.sleep(5)
        token = await made.service.authenticate(A1, KEY)
        found = await made.service.verify(token.encode())
        assert found.agent.id == A1
        assert found.expires == EPOCH + 5 + life_at(A1, int(EPOCH) + 5)
        stored = made.backends.agents.stored[A1]
        assert (stored.status, stored.last_login) == ("active", EPOCH + 5)

    @pytest.mark.parametrize("ahead", [60, 300, 450])
    async def test_a_clock_that_is_ahead_where_workers_take_turns(self, ahead: int, autojump_clock: MockClock) -> None:
        """Each worker hears of one log-in in twelve."""
        made = await setting()
        workers = [
            Authenticator(made.backends.agents, KEYS, wall_clock=trio_wall_clock, run_blocking=made.blocking)
            for _ in range(12)
        ]
        log_ins, hours = 0, 6 * 3600
        while trio.current_time() < hours:
            token = await workers[log_ins % len(workers)].authenticate(A1, KEY)
            log_ins += 1
            await trio.sleep(max(1, token_expiry(token) - 2 - ahead - trio_wall_clock()))
        assert log_ins <= 2.1 * hours / (LIFETIME - 2 - ahead) + 2

    async def test_exact_refusals(self, autojump_clock: MockClock) -> None:
        made = await setting()
        with pytest.raises(InvalidKey) as wrong:
            await made.service.authenticate(A1, KEY[::-1])
        assert (wrong.value.message, wrong.value.code) == ("Invalid key", 401)
        for uuid in (A2, "", "nonsense", A1 + "\n", "x" * 10_000):
            with pytest.raises(AgentUnknown) as unknown:
                await made.service.authenticate(uuid, KEY)
            assert (unknown.value.message, unknown.value.code) == ("Agent does not exist", 403)
        assert made.backends.agents.stored[A1].last_login is None

    async def test_upper_case_is_the_same_agent(self, autojump_clock: MockClock) -> None:
        made = await setting()
        token = await made.service.authenticate(A1.upper(), KEY)
        assert (await made.service.verify(token.encode())).agent.id == A1

    async def test_a_proven_key_needs_no_second_hash_for_an_hour(self, autojump_clock: MockClock) -> None:
        made = await setting()
        for _ in range(3):
            await made.service.authenticate(A1, KEY)
        assert made.blocking.runs == 1
        with pytest.raises(InvalidKey):
            await made.service.authenticate(A1, KEY[::-1])
        assert made.blocking.runs == 1
        await trio.sleep(3599)
        await made.service.authenticate(A1, KEY)
        assert made.blocking.runs == 1
        await trio.sleep(2)
        await made.service.authenticate(A1, KEY)
        assert made.blocking.runs == 2

    async def test_a_proof_is_worth_nothing_after_a_rekey(self, autojump_clock: MockClock) -> None:
        made = await setting(A1, A2)
        await made.service.authenticate(A1, KEY)
        await made.backends.agents.rekey(A1, hash_key("another"))
        with pytest.raises(InvalidKey):
            await made.service.authenticate(A1, KEY)
        await made.service.authenticate(A1, "another")
        await made.service.authenticate(A2, KEY)
        assert made.blocking.runs == 4

    async def test_at_once_one_hash_does_for_all_of_an_agent(self, autojump_clock: MockClock) -> None:
        made = await setting()
        made.blocking.takes = 1
        await gather(*(lambda: made.service.authenticate(A1, KEY) for _ in range(10)))
        assert made.blocking.runs == 1

    async def test_few_hashes_at_a_time_and_a_flood_on_one_agent_holds_up_no_other(
        self, autojump_clock: MockClock
    ) -> None:
        fleet = [f"{A1[:-2]}{number:02x}" for number in range(20)]
        made = await setting(*fleet)
        made.blocking.takes = 1

        async def attack() -> None:
            with pytest.raises(InvalidKey):
                await made.service.authenticate(fleet[0], new_key())

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(attack)
            await trio.sleep(0.5)
            await made.service.authenticate(fleet[1], KEY)
            assert trio.current_time() < 3
            await gather(*(lambda one=one: made.service.authenticate(one, KEY) for one in fleet[1:]))
            assert trio.current_time() < 25
            assert made.blocking.most <= 4

    async def test_a_right_key_isnt_behind_wrong_ones_of_another_address(self, autojump_clock: MockClock) -> None:
        made = await setting()
        made.blocking.takes = 0.012

        async def wrong(number: int) -> None:
            with pytest.raises(InvalidKey):
                await made.service.authenticate(A1, f"wrong-{number}", peer="10.6.6.6")

        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(wrong, number)
            await wait_all_tasks_blocked()
            start = trio.current_time()
            assert await made.service.authenticate(A1, KEY, peer="10.0.0.1")
            assert trio.current_time() - start < 0.05
            nursery.cancel_scope.cancel()
        assert not made.service._secrets._turns

    async def test_a_wrong_key_isnt_hashed_again_and_a_rekey_makes_it_right(self, autojump_clock: MockClock) -> None:
        made = await setting()
        for _ in range(3):
            with pytest.raises(InvalidKey):
                await made.service.authenticate(A1, "old")
        assert made.blocking.runs == 1
        await made.backends.agents.remove(A1)
        await made.backends.agents.add(attrs.evolve(agent(A1), key_hash=hash_key("old")))
        assert await made.service.authenticate(A1, "old")

    async def test_a_log_in_that_cant_be_recorded_is_one(
        self, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
    ) -> None:
        """However many there are, the log has the first, and then how many."""
        made = await setting()

        async def fails(agent_id: str, when: float) -> None:
            await trio.lowlevel.checkpoint()
            raise BackendUnavailable

        made.backends.agents.record_login = fails  # type: ignore[method-assign]
        for _ in range(20):
            assert await made.service.authenticate(A1, KEY)
        assert len(caplog.messages) == 1

    async def test_a_registry_that_is_away(self, autojump_clock: MockClock) -> None:
        made = await setting()
        made.backends.agents.faults.error = BackendUnavailable()
        with pytest.raises(BackendUnavailable):
            await made.service.authenticate(A1, KEY)

    async def test_a_cancelled_log_in_leaves_nothing(self, autojump_clock: MockClock) -> None:
        made = await setting()
        made.blocking.takes = 10
        with trio.move_on_after(1):
            await made.service.authenticate(A1, KEY)
        made.blocking.takes = 0
        assert await made.service.authenticate(A1, KEY)
        assert not made.service._secrets._turns


class TestVerify:
    @pytest.mark.parametrize("token", [None, b"", b"nonsense"])
    async def test_missing_and_malformed(self, token: bytes | None, autojump_clock: MockClock) -> None:
        with pytest.raises(TokenInvalid):
            await (await setting()).service.verify(token)

    async def test_expired_by_a_second(self, autojump_clock: MockClock) -> None:
        made = await setting()
        token = (await made.service.authenticate(A1, KEY)).encode()
        await trio.sleep(life_at(A1, int(EPOCH)) - 1)
        await made.service.verify(token)  # from now on it is remembered
        for _ in range(2):
            await trio.sleep(1)
            with pytest.raises(TokenExpired):
                await made.service.verify(token)
        assert not len(made.service._read)

    async def test_removed_and_enrolled_anew(self, autojump_clock: MockClock) -> None:
        made = await setting()
        token = (await made.service.authenticate(A1, KEY)).encode()
        await made.service.verify(token)
        await made.backends.agents.remove(A1)
        with pytest.raises(TokenInvalid):
            await made.service.verify(token)
        await made.backends.agents.add(agent(key_hash=hash_key(KEY)))
        with pytest.raises(TokenInvalid):
            await made.service.verify(token)
        await made.service.verify((await made.service.authenticate(A1, KEY)).encode())

    async def test_rekeyed(self, autojump_clock: MockClock) -> None:
        made = await setting()
        token = (await made.service.authenticate(A1, KEY)).encode()
        await made.service.verify(token)
        await made.backends.agents.rekey(A1, hash_key("another"))
        with pytest.raises(TokenInvalid) as caught:
            await made.service.verify(token)
        assert caught.value.code == 2706

    async def test_rekeyed_and_logged_in_elsewhere(self, autojump_clock: MockClock) -> None:
        """A token of another node, for a key that isn't known here yet, is good at once; the old one then isn't."""
        made = await setting()
        old = (await made.service.authenticate(A1, KEY)).encode()

        class Remembering(MemoryAgents):
            async def lookup(self, agent_id: str) -> Agent | None:
                return remembered[agent_id]

            async def get(self, agent_id: str) -> Agent | None:
                remembered[agent_id] = found = await made.backends.agents.get(agent_id)
                return found

        remembered: dict[str, Agent | None] = {A1: await made.backends.agents.get(A1)}
        there = Authenticator(Remembering(), KEYS, wall_clock=trio_wall_clock, run_blocking=made.blocking)
        await made.backends.agents.rekey(A1, hash_key("another"))
        await there.verify(old)
        await there.verify((await made.service.authenticate(A1, "another")).encode())
        with pytest.raises(TokenInvalid):
            await there.verify(old)

    async def test_at_once_as_far_as_the_registry_knows(self, autojump_clock: MockClock) -> None:
        made = await setting()
        known: dict[str, Agent] = {}

        class Knowing(MemoryAgents):
            def known(self, agent_id: str) -> Agent | None:
                return known.get(agent_id)

        there = Authenticator(Knowing(), KEYS, wall_clock=trio_wall_clock, run_blocking=made.blocking)
        token = (await made.service.authenticate(A1, KEY)).encode()
        assert there.verify_at_once(token) is None
        known[A1] = made.backends.agents.stored[A1]
        caller = there.verify_at_once(token)
        assert caller == attrs.evolve(await made.service.verify(token), read_at=trio.current_time())
        known[A1] = attrs.evolve(known[A1], key_hash=hash_key("another"))  # perhaps it was given back since
        assert there.verify_at_once(token) is None
        with pytest.raises(TokenInvalid):
            there.verify_at_once(token[:-2])
        await trio.sleep(901)
        with pytest.raises(TokenExpired):
            there.verify_at_once(token)

    async def test_anothers_token_without_a_fingerprint(self, autojump_clock: MockClock) -> None:
        made = await setting()
        now = int(EPOCH)
        claims = {"iss": "wazuh", "aud": "Wazuh Communications API", "iat": now, "exp": now + 900, "uuid": A1}
        assert (await made.service.verify(sign(claims, key=PRIVATE))).agent.id == A1
        ahead = {**claims, "iat": now + 31, "exp": now + 931}
        with pytest.raises(TokenInvalid):
            await made.service.verify(sign(ahead, key=PRIVATE))

    async def test_the_signature_is_looked_at_once(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await setting()
        token = (await made.service.authenticate(A1, KEY)).encode()
        opened: list[bytes] = []
        real = TokenKeys.open

        def count(keys: TokenKeys, token: bytes) -> bytes:
            opened.append(token)
            return real(keys, token)

        monkeypatch.setattr(TokenKeys, "open", count)
        for _ in range(5):
            await made.service.verify(token)
        assert len(opened) == 1

    async def test_what_is_remembered_is_bounded(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wazuh_comms_trio.services.authentication.authenticator._TOKENS_REMEMBERED", 3)
        made = await setting()
        for _ in range(10):
            await made.service.verify((await made.service.authenticate(A1, KEY)).encode())
            await trio.sleep(1)
        assert len(made.service._read) == 3

    async def test_a_registry_that_is_away(self, autojump_clock: MockClock) -> None:
        made = await setting()
        token = (await made.service.authenticate(A1, KEY)).encode()
        made.backends.agents.faults.error = BackendUnavailable()
        with pytest.raises(BackendUnavailable):
            await made.service.verify(token)


async def test_hashing_isnt_done_on_the_loop() -> None:
    """In a thread, while the loop goes on."""
    threads: list[int] = []

    async def run_blocking(fn: Callable[..., Any], *args: object) -> Any:
        def run() -> Any:
            threads.append(threading.get_ident())
            return fn(*args)

        return await trio.to_thread.run_sync(run)

    backends = memory_backends()
    await backends.agents.add(agent())
    service = Authenticator(backends.agents, KEYS, wall_clock=lambda: EPOCH, run_blocking=run_blocking)
    await service.authenticate(A1, KEY)
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_inline_is_good_enough_for_the_mock_clock(autojump_clock: MockClock) -> None:
    backends = memory_backends(wall_clock=trio_wall_clock)
    await backends.agents.add(agent())
    service = Authenticator(backends.agents, KEYS, wall_clock=trio_wall_clock, run_blocking=inline)
    assert await service.authenticate(A1, KEY)
    assert trio.current_time() == 0
