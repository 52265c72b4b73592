"""Who goes first when more come than are served, and who is turned away."""

from __future__ import annotations

import socket
import ssl
import struct

import pytest
from attrs import define

from wazuh_comms_trio.http.server.crowd import (
    BALANCE,
    BEGUN_AT_ONCE,
    HEARD_WITHIN,
    MOST_PASSED,
    NEWEST_FIRST_AFTER,
    TURN,
    Crowd,
    Pace,
    Turns,
    Unlimited,
    has_waited,
)
from wazuh_comms_trio.http.server.giving_way import LONGEST_HOLD, Precedence
from wazuh_comms_trio.http.server.streams.client_hello import is_check, peek

LONGEST = 10.0


def crowd_of(*since: float, most: int = 100) -> Crowd:
    """Of agents, each named by its moment."""
    crowd = Crowd(most, LONGEST)
    for moment in since:
        crowd.add(moment, moment)
    return crowd


def taken(crowd: Crowd, now: float, count: int) -> list[object]:
    return [crowd.next(now) for _ in range(count)]


class TestOrder:
    def test_the_oldest_first_while_nobody_has_waited_for_long(self) -> None:
        crowd = crowd_of(0, 0.1, 0.2)
        assert taken(crowd, NEWEST_FIRST_AFTER, 4) == [0, 0.1, 0.2, None]

    def test_then_the_newest(self) -> None:
        crowd = crowd_of(0, 1, 2, 3)
        assert taken(crowd, 3.5, 4) == [3, 2, 1, 0]

    def test_the_oldest_again_when_the_crowd_is_gone(self) -> None:
        crowd = crowd_of(0, 4, 4.1)
        assert taken(crowd, 4.2, 1) == [4.1]
        assert crowd.take_too_late(LONGEST) == [0]
        crowd.add(4.5, 4.5)
        assert taken(crowd, 4.6, 2) == [4, 4.5]

    def test_checks_go_before_agents_every_second_time(self) -> None:
        crowd = crowd_of(0, 0.1, 0.2)
        for name in ("first", "second", "third"):
            crowd.add(name, 0.3, check=True)
        assert taken(crowd, 0.4, 7) == ["first", 0, "second", 0.1, "third", 0.2, None]

    def test_the_newest_of_the_checks_too_when_they_wait(self) -> None:
        """What looks like a check needn't be one: a flood of them holds up no real one for long."""
        crowd = Crowd(100, LONGEST)
        for moment in range(4):
            crowd.add(moment, moment, check=True)
        assert taken(crowd, 3.5, 4) == [3, 2, 1, 0]


class TestTooLate:
    def test_who_has_waited_for_the_longest_time(self) -> None:
        crowd = crowd_of(0, 1, 2)
        assert crowd.take_too_late(LONGEST - 0.1) == []
        assert crowd.take_too_late(LONGEST + 1) == [0, 1]
        assert len(crowd) == 1

    def test_the_oldest_agents_when_there_are_too_many(self) -> None:
        crowd = crowd_of(0, 1, 2, 3, most=3)
        crowd.add("check", 0, check=True)
        assert crowd.take_too_late(4) == [0, 1]
        assert crowd.take_all() == ["check", 2, 3]
        assert len(crowd) == 0


class TestTooManySilent:
    @staticmethod
    def heard(most: int, *agents: int) -> tuple[Crowd, list[socket.socket]]:
        """A crowd of so many that haven't sent anything in time, each with its client's end, and then of agents."""
        crowd, clients = Crowd(most, LONGEST), []
        for _ in range(3):
            ours, client = socket.socketpair()
            crowd.add_silent(ours, 0.0)
            clients.append(client)
        crowd.hear(HEARD_WITHIN + 0.1)
        for agent in agents:
            crowd.add(agent, float(agent))
        return crowd, clients

    def test_they_go_first_when_there_are_too_many(self) -> None:
        crowd, clients = self.heard(4, 1, 2, 3)
        late = crowd.take_too_late(4)
        assert len(late) == 2
        last, *agents = crowd.take_all()
        assert agents == [1, 2, 3]
        for sock in (*late, last, *clients):
            sock.close()

    def test_one_that_has_sent_something_since_is_like_others(self) -> None:
        crowd, clients = self.heard(3, 1)
        clients[0].send(b"\x16")
        (late,) = crowd.take_too_late(2)
        left = crowd.take_all()
        assert left[0].recv(1) == b"\x16"
        assert left[2] == 1
        for sock in (late, *left[:2], *clients):
            sock.close()

    def test_those_that_were_begun_with_are_no_more_there(self) -> None:
        crowd, clients = self.heard(1, 5)
        begun = taken(crowd, 0.5, 3)
        assert crowd.take_too_late(6) == []
        assert crowd.take_all() == [5]
        for sock in (*begun, *clients):
            sock.close()


def client_hello(alpn: list[str], name: str | None = None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


V2 = b"\r\n\r\n\0\r\nQUIT\n"
V2_LOCAL = V2 + b"\x20\0\0\0"
V2_AGENT = V2 + b"\x21\x11\0\x0c" + bytes([10, 0, 0, 5, 10, 0, 0, 1]) + struct.pack(">HH", 40000, 27000)
V1_AGENT = b"PROXY TCP4 10.0.0.5 10.0.0.1 40000 27000\r\n"


class TestChecks:
    @pytest.mark.parametrize("alpn", [["http/1.1"], ["h2", "http/1.1"]])
    @pytest.mark.parametrize("header", [b"", V1_AGENT, V2_AGENT])
    def test_who_asks_for_http_by_alpn(self, header: bytes, alpn: list[str]) -> None:
        assert is_check(header + client_hello(alpn))

    @pytest.mark.parametrize("header", [b"", V1_AGENT, V2_AGENT])
    @pytest.mark.parametrize("name", [None, "node-1"])
    def test_agents_dont(self, header: bytes, name: str | None) -> None:
        assert not is_check(header + client_hello([], name))

    @pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", V2_LOCAL])
    def test_a_balancers_own(self, header: bytes) -> None:
        assert is_check(header + client_hello([]))

    @pytest.mark.parametrize("data", [V2_AGENT, V1_AGENT, b"PROXY nonsense\r\n", V2 + b"\xff\xff\xff\xff", b"GET /"])
    def test_what_is_cut_short_or_nothing_counts_as_an_agent(self, data: bytes) -> None:
        hello = client_hello([])
        for end in range(len(data)):
            assert not is_check(data[:end])
        assert not is_check(data + hello[:20])


class FakeSocket:
    family = socket.AF_INET

    def __init__(self, info: bytes | OSError) -> None:
        self.info = info

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.IPPROTO_TCP, socket.TCP_INFO, 56)
        if isinstance(self.info, OSError):
            raise self.info
        return self.info


class TestWaited:
    @pytest.mark.parametrize(
        ("info", "seconds"),
        [(bytes(52) + struct.pack("=I", 70_500), 70.5), (bytes(40), 0.0), (OSError("gone"), 0.0)],
    )
    def test_what_the_kernel_says(self, info: bytes | OSError, seconds: float) -> None:
        assert has_waited(FakeSocket(info)) == seconds

    def test_of_real_connections(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as client,
        ):
            client.send(b"hello")
            accepted, _ = listener.accept()
            with accepted:
                assert 0 <= has_waited(accepted) < 60
                while peek(accepted) != b"hello":
                    pass
                assert accepted.recv(100) == b"hello"
                assert peek(accepted) == b""
        left, right = socket.socketpair()
        with left, right:
            assert has_waited(left) == 0


class Client:
    """A socket, as far as one looks at what has come."""

    def __init__(self) -> None:
        self.sent = b""

    def recv(self, size: int, flags: int) -> bytes:
        if not self.sent:
            raise BlockingIOError
        return self.sent[:size]


class TestSilent:
    def test_a_check_that_sends_a_moment_later_is_one(self) -> None:
        crowd = crowd_of(0)
        check, agent, silent = Client(), Client(), Client()
        for client in (agent, check, silent):
            crowd.add_silent(client, 0.1)
        assert len(crowd) == 4
        crowd.hear(0.11)
        assert taken(crowd, 0.11, 2) == [0, None]
        check.sent, agent.sent = b"\x16\x03\x01\x08http/1.1", b"\x16\x03\x01"
        crowd.hear(0.12)
        assert taken(crowd, 0.12, 3) == [check, agent, None]
        crowd.hear(0.1 + HEARD_WITHIN + 0.01)
        assert crowd.next(0.4) is silent
        assert len(crowd) == 0

    def test_at_stop_they_are_there(self) -> None:
        crowd = crowd_of(0)
        crowd.add_silent("silent", 0.1)
        assert crowd.take_all() == [0, "silent"]
        assert len(crowd) == 0


class TestSpread:
    def test_those_that_came_at_once_do_not_go_at_once(self) -> None:
        crowd = Crowd(1000, LONGEST, 0.7)
        for number in range(100):
            crowd.add(number, 0.0)
        gone = [len(crowd.take_too_late(moment)) for moment in (2.9, *range(3, 11))]
        assert gone[0] == 0
        assert sum(gone) == 100
        assert max(gone) <= 16
        assert len(crowd) == 0

    def test_who_waits_for_the_event_loop_alone_waits_for_the_longest_time(self) -> None:
        crowd = Crowd(1000, LONGEST, 0.7)
        for number in range(100):
            crowd.add(number, 0.0)
        assert all(crowd.take_too_late(moment, early=False) == [] for moment in range(10))
        assert sorted(crowd.take_too_late(LONGEST, early=False)) == list(range(100))

    def test_who_is_begun_with_is_not_late_later(self) -> None:
        crowd = Crowd(1000, LONGEST, 0.7)
        for number in range(100):
            crowd.add(number, 0.0)
        begun = taken(crowd, 2.0, 60)
        assert begun == list(range(99, 39, -1))  # the newest first
        assert sorted(crowd.take_too_late(LONGEST)) == list(range(40))
        assert crowd.next(LONGEST) is None
        assert crowd.take_all() == []

    def test_the_oldest_of_those_that_are_still_there_go_first_when_there_are_too_many(self) -> None:
        crowd = Crowd(10, LONGEST, 0.7)
        for number in range(15):
            crowd.add(number, number / 10)
        assert taken(crowd, 1.0, 2) == [0, 1]
        assert crowd.take_too_late(2.0) == [2, 3, 4]
        assert len(crowd) == 10

    def test_a_wave_has_ebbed_when_no_agent_has_come_for_a_while(self) -> None:
        crowd = crowd_of(0, 1)
        crowd.add("check", 5, check=True)
        assert not crowd.has_ebbed(1.5)
        assert crowd.has_ebbed(2.5)
        crowd.take_all()
        assert crowd.has_ebbed(0)


@define
class Hashing:
    """So many places, all that there are."""

    places: float
    refused: int = 0

    def room(self, *, late: bool = False) -> float:
        return self.places


def none_undecided() -> int:
    return 0


class TestPace:
    def test_without_limits_nobody_is_held_up(self) -> None:
        pace = Pace(Unlimited())
        assert all(pace.may_begin(number, lambda: 1000) for number in range(10))

    def test_no_more_are_begun_than_there_are_places_for(self) -> None:
        pace = Pace(Hashing(5))
        assert [pace.may_begin(begun, lambda: 3) for begun in range(4)] == [True, True, False, False]

    @pytest.mark.parametrize(("refused_of_ten", "held_up"), [(0, False), (3, False), (4, True), (10, True)])
    def test_without_places_it_depends_on_what_became_of_the_others(self, refused_of_ten: int, held_up: bool) -> None:
        """Other requests than those that need a place aren't held up by a few that do."""
        hashing = Hashing(1)
        pace = Pace(hashing)
        begun = 0
        for number in range(2000):
            if not pace.may_begin(0, none_undecided):
                break
            pace.begun()
            begun += 1
            hashing.refused += 9 - number % 10 < refused_of_ten
            hashing.places = 0
        assert (begun < 2000) is held_up

    def test_a_bad_time_is_forgotten_soon(self) -> None:
        hashing = Hashing(0, refused=5000)
        pace = Pace(hashing)
        hashing.refused += 5000
        assert not pace.may_begin(0, none_undecided)
        hashing.places = 1
        for _ in range(3 * BALANCE + 1):
            assert pace.may_begin(0, none_undecided)
            pace.begun()
        hashing.places = 0
        assert pace.may_begin(0, none_undecided)


class TestTurns:
    def test_the_shorter_a_turn_was_the_more_are_begun(self) -> None:
        turns = Turns()
        assert [turns.begins(part * TURN) for part in (0.0, 0.4, 0.6, 0.9)] == [BEGUN_AT_ONCE, BEGUN_AT_ONCE, 1, 1]

    def test_after_long_turns_one_is_begun_now_and_then(self) -> None:
        turns = Turns()
        begun = [turns.begins(5 * TURN) for _ in range(3 * (MOST_PASSED + 1))]
        assert begun == 3 * [*MOST_PASSED * [0], 1]

    def test_a_short_turn_ends_the_wait(self) -> None:
        turns = Turns()
        assert [turns.begins(cpu * TURN) for cpu in (2, 0.7, *MOST_PASSED * [2], 2)] == [0, 1, *MOST_PASSED * [0], 1]

    def test_where_something_else_has_precedence_one_is_begun_when_there_is_nothing_to_do(self) -> None:
        turns = Turns()
        assert [turns.begins(part * TURN, holds=True) for part in (0.1, 0.3, *MOST_PASSED * [5], 5)] == [
            1,
            *(MOST_PASSED + 2) * [0],
        ]


class TestPrecedence:
    def test_what_is_urgent_has_it_until_it_is_done(self) -> None:
        precedence = Precedence()
        assert not precedence.holds(False, 1.0)
        assert precedence.holds(True, 1.0)
        assert precedence.holds(True, 1.0 + LONGEST_HOLD / 2)
        assert not precedence.holds(False, 1.0 + LONGEST_HOLD / 2)

    def test_half_of_the_time_at_most(self) -> None:
        precedence = Precedence()
        step = LONGEST_HOLD / 100
        held = sum(precedence.holds(True, 1.0 + number * step) for number in range(2000))
        assert 950 <= held <= 1050
