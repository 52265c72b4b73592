"""Enrolment: sessions, agents added, and guessing made slow."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.services.bench import A1, EPOCH, KEY, gather, inline, trio_wall_clock
from tests.services.test_authentication import KEYS, Blocking
from wazuh_comms_trio.backends.memory.stores import MemoryBackends, memory_backends
from wazuh_comms_trio.errors import AgentExists, BackendUnavailable, MalformedRequest, TokenInvalid
from wazuh_comms_trio.services.authentication.authenticator import Authenticator
from wazuh_comms_trio.services.authentication.login_throttle import TooManyAttempts
from wazuh_comms_trio.services.authentication.secret_hashes import hash_key
from wazuh_comms_trio.services.enrollment import HELD_BACK, EnrollmentService, Unauthorized

PASSWORD = "correct horse"  # noqa: S105
USERS = {"wazuh": hash_key(PASSWORD), "other": hash_key("battery staple")}
AGENT: dict[str, Any] = {
    "id": A1,
    "name": "a1",
    "type": "Endpoint",
    "version": "6.0.0",
    "key": KEY,
    "host": {"architecture": "x86_64", "hostname": "h1", "ip": ["10.0.0.5"], "os": {"name": "Debian"}},
}


@attrs.define
class Setting:
    service: EnrollmentService
    backends: MemoryBackends
    blocking: Blocking

    async def session(self) -> str:
        return await self.service.log_in("wazuh", PASSWORD, peer="10.0.0.5")

    async def enrol(self, **changes: Any) -> Any:
        members = {name: value for name, value in {**AGENT, **changes}.items() if value is not ...}
        return await self.service.enrol(await self.session(), json.dumps(members).encode())


def setting() -> Setting:
    backends = memory_backends(wall_clock=trio_wall_clock)
    blocking = Blocking()
    service = EnrollmentService(backends.agents, KEYS, USERS, wall_clock=trio_wall_clock, run_blocking=blocking)
    return Setting(service, backends, blocking)


class TestEnrol:
    async def test_the_log_says_who_let_whom_in(
        self, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        await setting().enrol()
        assert caplog.messages == [f"agent {A1} (a1) was enrolled by wazuh"]
        assert KEY not in caplog.text

    async def test_an_agent_can_log_in_afterwards(self, autojump_clock: MockClock) -> None:
        made = setting()
        data = await made.enrol()
        assert data == {"id": A1, "name": "a1", "type": "Endpoint", "version": "6.0.0", "groups": []}
        stored = made.backends.agents.stored[A1]
        assert (stored.name, stored.type, stored.version, stored.host) == ("a1", "Endpoint", "6.0.0", AGENT["host"])
        login = Authenticator(made.backends.agents, KEYS, wall_clock=trio_wall_clock, run_blocking=inline)
        assert await login.authenticate(A1, KEY)

    async def test_a_known_uuid(self, autojump_clock: MockClock) -> None:
        made = setting()
        await made.enrol()
        with pytest.raises(AgentExists) as caught:
            await made.enrol(id=A1.upper(), name="another")
        assert caught.value.code == 409
        assert made.backends.agents.stored[A1].name == "a1"

    @pytest.mark.parametrize(
        "changes",
        [
            {"name": "n" * 128},
            {"name": "caf\u00e9 \U0001f427"},
            {"type": ..., "version": ..., "host": ...},
            {"type": None, "later_field": [1]},
            {"id": "0b1d8b4e-2d3c-4a5f-9c6d-7e8f9a0b1c2d"},
        ],
    )
    async def test_what_is_taken(self, changes: dict[str, Any], autojump_clock: MockClock) -> None:
        made = setting()
        await made.enrol(**changes)
        assert len(made.backends.agents.stored) == 1

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"id": ...}, "id"),
            ({"id": "a1"}, "id: Expected a uuid"),
            ({"id": 7}, "id: Expected `str`"),
            ({"name": ...}, "name"),
            ({"name": ""}, "name"),
            ({"name": "  "}, "name"),
            ({"name": "n" * 129}, "name: Expected 1 to 128"),
            ({"name": "a\0b"}, "name"),
            ({"name": "a\nb"}, "name"),
            ({"key": ...}, "key"),
            ({"key": KEY[:-1]}, "key: Expected 32 letters and digits"),
            ({"key": KEY + "0"}, "key"),
            ({"key": KEY[:-1] + "\n"}, "key"),
            ({"key": "\u0661" * 32}, "key"),
            ({"host": []}, "host: Expected `object | null`"),
            ({"type": 7}, "type"),
        ],
    )
    async def test_what_isnt(self, changes: dict[str, Any], reason: str, autojump_clock: MockClock) -> None:
        made = setting()
        with pytest.raises(MalformedRequest, match=f"{reason.replace('|', '.')}"):
            await made.enrol(**changes)
        assert not made.backends.agents.stored

    @pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"id":"\xff"}', b"[" * 10_000])
    async def test_bodies_that_are_none(self, body: bytes, autojump_clock: MockClock) -> None:
        made = setting()
        with pytest.raises(MalformedRequest):
            await made.service.enrol(await made.session(), body)

    async def test_a_registry_that_is_away(self, autojump_clock: MockClock) -> None:
        made = setting()
        made.backends.agents.faults.error = BackendUnavailable()
        with pytest.raises(BackendUnavailable):
            await made.enrol()


class TestSessions:
    @pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "\u00e9.\u00e9.\u00e9"])
    async def test_no_session(self, token: str, autojump_clock: MockClock) -> None:
        with pytest.raises(Unauthorized) as caught:
            await setting().service.enrol(token, b"{}")
        assert caught.value.code == 401

    async def test_they_are_short(self, autojump_clock: MockClock) -> None:
        made = setting()
        token = await made.session()
        await trio.sleep(299)
        with pytest.raises(MalformedRequest):
            await made.service.enrol(token, b"{}")
        await trio.sleep(1)
        with pytest.raises(Unauthorized, match="expired"):
            await made.service.enrol(token, b"{}")

    async def test_an_agents_token_is_none_nor_the_other_way_round(self, autojump_clock: MockClock) -> None:
        made = setting()
        with pytest.raises(Unauthorized):
            await made.service.enrol(KEYS.mint(A1, "", EPOCH), json.dumps(AGENT).encode())
        login = Authenticator(made.backends.agents, KEYS, wall_clock=trio_wall_clock, run_blocking=inline)
        with pytest.raises(TokenInvalid):
            await login.verify((await made.session()).encode())

    async def test_a_user_that_is_gone(self, autojump_clock: MockClock) -> None:
        made = setting()
        token = await made.session()
        without = EnrollmentService(
            made.backends.agents, KEYS, {}, wall_clock=trio_wall_clock, run_blocking=made.blocking
        )
        with pytest.raises(Unauthorized):
            await without.enrol(token, json.dumps(AGENT).encode())


class TestPasswords:
    async def wrong(self, made: Setting, *, user: str = "wazuh", peer: str | None = "10.0.0.9") -> float:
        """How long the refusal took."""
        start = trio.current_time()
        with pytest.raises(Unauthorized, match="Invalid credentials"):
            await made.service.log_in(user, "wrong", peer=peer)
        return trio.current_time() - start

    @pytest.mark.parametrize("user", ["wazuh", "nobody", ""])
    async def test_wrong_ones_take_longer_and_longer(self, user: str, autojump_clock: MockClock) -> None:
        made = setting()
        taken = [await self.wrong(made, user=user) for _ in range(8)]
        assert taken == pytest.approx([0, 0.5, 1, 2, 4, 8, 8, 8])
        assert made.blocking.runs == 8

    async def test_nobody_else_is_held_up(self, autojump_clock: MockClock) -> None:
        made = setting()
        for _ in range(5):
            await self.wrong(made)
        start = trio.current_time()
        assert await made.service.log_in("wazuh", PASSWORD, peer="10.0.0.5")
        assert await made.service.log_in("other", "battery staple", peer="10.0.0.9")
        assert trio.current_time() == start

    async def test_in_parallel_it_is_no_faster(self, autojump_clock: MockClock) -> None:
        made = setting()
        await self.wrong(made)
        refused = []

        async def guess() -> None:
            try:
                await self.wrong(made)
            except TooManyAttempts as exc:
                refused.append((exc.code, exc.retry_after))

        await gather(*(guess for _ in range(50)))
        assert refused == [(429, 8)] * 46
        assert trio.current_time() == pytest.approx(0.5 + 1 + 2 + 4)
        assert made.blocking.runs == 5
        assert not made.service._throttle._queues

    async def test_time_doesnt_tell_users_apart(self, autojump_clock: MockClock) -> None:
        """Under a load of unknown names, from one address, another's wrong tries take the same for any name."""
        taken: dict[str, list[float]] = {}
        for user in ("wazuh", "nobody"):
            for peer in ("10.0.0.9", "10.0.0.5"):
                made = setting()
                made.blocking.takes = 0.05
                start = trio.current_time()
                async with trio.open_nursery() as nursery:
                    for number in range(20):
                        nursery.start_soon(partial(self.wrong, made, user=f"unknown-{number}"))
                    await wait_all_tasks_blocked()
                    await self.wrong(made, user=user, peer=peer)
                    taken.setdefault(peer, []).append(trio.current_time() - start)
        for known, unknown in taken.values():
            assert known == pytest.approx(unknown)
        assert max(taken["10.0.0.5"]) < 0.2 < min(taken["10.0.0.9"])

    async def test_leaving_early_is_no_faster(self, autojump_clock: MockClock) -> None:
        made = setting()
        made.blocking.takes = 0.2
        for _ in range(3):
            with trio.move_on_after(0.1):
                await made.service.log_in("wazuh", "wrong", peer="10.0.0.9")
        made.blocking.takes = 0
        assert await self.wrong(made) == pytest.approx(0.3)

    async def test_a_right_one_ends_it(self, autojump_clock: MockClock) -> None:
        made = setting()
        for _ in range(3):
            await self.wrong(made)
        assert await made.service.log_in("wazuh", PASSWORD, peer="10.0.0.9")
        assert await self.wrong(made) == 0

    async def test_after_a_while_it_is_forgotten(self, autojump_clock: MockClock) -> None:
        made = setting()
        for _ in range(6):
            await self.wrong(made)
        await trio.sleep(700)
        assert await self.wrong(made) == 0
        assert await self.wrong(made) == pytest.approx(0.5)

    async def test_a_fleet_with_the_right_one(self, autojump_clock: MockClock) -> None:
        made = setting()
        made.blocking.takes = 0.1
        await gather(*(partial(made.service.log_in, "wazuh", PASSWORD, peer="10.0.0.5") for _ in range(500)))
        assert made.blocking.runs == 1
        await self.wrong(made, peer="10.0.0.5")
        start = trio.current_time()
        await made.service.log_in("wazuh", PASSWORD, peer="10.0.0.5")
        assert trio.current_time() == start

    async def test_huge_ones(self, autojump_clock: MockClock) -> None:
        made = setting()
        for user, password in (("wazuh", "x" * 10**6), ("x" * 10**6, "x"), ("wazuh", "\0")):
            with pytest.raises(Unauthorized):
                await made.service.log_in(user, password)


class TestManyAtOnce:
    """Workers share a listener: one whose keys wait for their hash leaves connections to the others."""

    async def test_connections_are_left_to_others_until_no_key_waits(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})  # one hash at a time
        made = setting()
        await made.session()
        made.blocking.takes = 0.02
        began = trio.current_time()
        await made.service.leave_to_others()
        assert trio.current_time() == began
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(partial(made.enrol, id=f"{A1[:-1]}{number}", name=f"a{number}"))
            await wait_all_tasks_blocked()
            await made.service.leave_to_others()
            assert trio.current_time() - began == pytest.approx(4 * made.blocking.takes)
            assert made.blocking.running == 1
            await made.service.leave_to_others()
            assert trio.current_time() - began == pytest.approx(4 * made.blocking.takes)

    async def test_not_for_long(self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
        made = setting()
        await made.session()
        made.blocking.takes = HELD_BACK
        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(partial(made.enrol, id=f"{A1[:-1]}{number}", name=f"a{number}"))
            await wait_all_tasks_blocked()
            began = trio.current_time()
            await made.service.leave_to_others()
            assert trio.current_time() - began == pytest.approx(HELD_BACK)
