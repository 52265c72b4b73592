"""Tokens that are remembered: a few of each agent, so that there are about as many as agents."""

from __future__ import annotations

import random

from wazuh_comms_trio.services.authentication.token_memory import TokenMemory
from wazuh_comms_trio.services.authentication.tokens import AUDIENCE, ISSUER, LIFETIME, Claims


def claims(agent: str, made: int) -> Claims:
    return Claims(ISSUER, AUDIENCE, made, made + LIFETIME, agent)


def test_a_token_is_known_by_all_its_bytes() -> None:
    memory = TokenMemory(10)
    memory.put(b"token", claims("a", 0))
    assert memory.get(b"token") == claims("a", 0)
    assert memory.get(b"Token") is None
    memory.drop(b"token")
    memory.drop(b"token")
    assert memory.get(b"token") is None
    assert len(memory) == 0
    assert memory._of_agent == {}


def test_the_last_few_of_an_agent() -> None:
    memory = TokenMemory(100)
    for number in range(20):
        memory.put(b"%d" % number, claims("a", number))
    memory.put(b"other", claims("b", 0))
    assert [number for number in range(20) if memory.get(b"%d" % number)] == [16, 17, 18, 19]
    assert memory.get(b"other") is not None
    memory.put(b"17", claims("a", 17))  # read again
    memory.put(b"20", claims("a", 20))
    assert [number for number in range(21) if memory.get(b"%d" % number)] == [17, 18, 19, 20]


def test_expired_ones_go_with_a_newer_one() -> None:
    memory = TokenMemory(100)
    memory.put(b"first", claims("a", 0))
    memory.put(b"second", claims("a", LIFETIME - 1))
    assert len(memory) == 2
    memory.put(b"third", claims("a", LIFETIME))
    assert memory.get(b"first") is None
    assert memory.get(b"second") is not None


def test_a_day_of_a_fleet_is_no_more_than_the_fleet() -> None:
    """Its agents log in anew when their tokens end."""
    memory = TokenMemory(10_000)
    for turn in range(96):
        for agent in range(50):
            memory.put(b"%d of %d" % (turn, agent), claims(str(agent), turn * LIFETIME))
    assert len(memory) == 50


def test_more_than_there_is_room_for() -> None:
    random.seed(1)
    memory = TokenMemory(20)
    for agent in range(100):
        memory.put(b"%d" % agent, claims(str(agent), 0))
        memory.put(b"%d again" % agent, claims(str(agent), 1))
    assert len(memory) == 20
    known = {str(agent) for agent in range(100) if memory.get(b"%d" % agent) or memory.get(b"%d again" % agent)}
    assert set(memory._of_agent) == known
    for agent in range(100):
        memory.drop(b"%d" % agent)
        memory.drop(b"%d again" % agent)
    assert memory._of_agent == {}
