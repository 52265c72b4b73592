"""What is remembered of each agent, and what several workers remember together."""

from __future__ import annotations

from wazuh_comms_trio.services.agent_journal import _AGENTS, _STRANGERS, AgentJournal, merged


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_last_of_each_kind_on_each_channel() -> None:
    clock = Clock()
    journal = AgentJournal(clock)
    journal.refused("a", "login", "10.0.0.1", "wrong_key")
    clock.now += 5
    journal.heard("a", "login", "10.0.0.1")
    clock.now += 5
    journal.heard("a", "poll", "10.0.0.1")
    journal.refused("a", "stateful", None, "503 Service Unavailable")
    assert journal.about("a") == {
        "channels": {
            "login": {
                "success": {"at": 1005.0, "address": "10.0.0.1"},
                "refusal": {"at": 1000.0, "address": "10.0.0.1", "cause": "wrong_key"},
            },
            "poll": {"success": {"at": 1010.0, "address": "10.0.0.1"}, "refusal": None},
            "stateful": {
                "success": None,
                "refusal": {"at": 1010.0, "address": "local", "cause": "503 Service Unavailable"},
            },
        },
        "addresses": {"10.0.0.1": 1010.0},
        "since": {"10.0.0.1": 1005.0},
        "returns": 0,
    }
    assert journal.about("b") == {}


def test_who_says_an_agents_uuid_and_proves_nothing_is_told_of_beside_the_agent() -> None:
    clock = Clock()
    journal = AgentJournal(clock)
    journal.heard("a", "login", "10.0.0.1")
    clock.now += 5
    journal.refused("a", "login", "10.0.0.9", "foreign_certificate", known=False)
    about = journal.about("a")
    assert about["channels"]["login"] == {
        "success": {"at": 1000.0, "address": "10.0.0.1"},
        "refusal": {"at": 1005.0, "address": "10.0.0.9", "cause": "foreign_certificate"},
    }
    assert about["addresses"] == {"10.0.0.1": 1000.0}


def test_a_move_is_no_return_and_two_hosts_in_turn_are() -> None:
    journal = AgentJournal(Clock())
    for address in ("a", "a", "b", "b"):
        journal.heard("agent", "poll", address)
    assert journal.about("agent")["returns"] == 0
    for address in ("a", "b", "a"):
        journal.heard("agent", "poll", address)
    assert journal.about("agent")["returns"] == 3


def test_an_address_that_was_silent_for_long_begins_anew() -> None:
    clock = Clock()
    journal = AgentJournal(clock)
    for step, since in ((0, 1000.0), (900, 1000.0), (901, 2801.0)):
        clock.now += step
        journal.heard("agent", "poll", "a")
        assert journal.about("agent")["since"] == {"a": since}


def test_memory_is_bounded_and_strangers_displace_no_agent() -> None:
    journal = AgentJournal(Clock())
    journal.heard("agent", "poll", None)
    for number in range(2 * _STRANGERS):
        journal.refused(f"stranger {number}", "login", "a", "unknown_agent", known=False)
    assert journal.about("agent")
    assert not journal.about("stranger 0")
    assert journal.about(f"stranger {2 * _STRANGERS - 1}")
    for number in range(_AGENTS):
        journal.heard(f"agent {number}", "poll", None)
    assert not journal.about("agent")
    for number in range(100):
        journal.heard("agent", "poll", f"address {number}")
    assert len(journal.about("agent")["addresses"]) == 4


def test_workers_together() -> None:
    clock = Clock()
    one, other = AgentJournal(clock), AgentJournal(clock)
    one.heard("a", "poll", "x")
    one.refused("a", "login", "x", "wrong_key")
    clock.now += 1
    other.heard("a", "poll", "y")
    found = merged([{**one.about("a"), "parked": 1, "limits": ["l"]}, {**other.about("a"), "parked": 0}, {}])
    assert found["channels"]["poll"]["success"] == {"at": 1001.0, "address": "y"}
    assert found["channels"]["login"]["refusal"]["cause"] == "wrong_key"
    assert (found["addresses"], found["parked"], found["limits"]) == ({"x": 1000.0, "y": 1001.0}, 1, ["l"])
    assert merged([])["channels"] == {}
