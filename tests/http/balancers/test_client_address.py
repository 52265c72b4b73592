"""``X-Forwarded-For``: the last address that no trusted balancer has, and nothing that anybody else says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wazuh_comms_trio.http.balancers.client_address import Networks, forwarded_client

TRUSTED = Networks(["10.0.0.0/24", "192.0.2.9", "2001:db8::/64"])
BALANCER = ("10.0.0.5", 3321)


def client(*values: str, peer: tuple[str, int] = BALANCER) -> tuple[str, int]:
    headers = [(b"host", b"localhost"), *((b"x-forwarded-for", value.encode("latin-1")) for value in values)]
    return forwarded_client(peer, headers, TRUSTED)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((), BALANCER),
        (("203.0.113.7",), ("203.0.113.7", 0)),
        (("203.0.113.7:4711",), ("203.0.113.7", 4711)),
        (("2001:db8:1::7",), ("2001:db8:1::7", 0)),
        (("[2001:db8:1::7]:4711",), ("2001:db8:1::7", 4711)),
        (("[2001:db8:1::7]",), ("2001:db8:1::7", 0)),
        (("::ffff:203.0.113.7",), ("203.0.113.7", 0)),
        (("198.51.100.1, 203.0.113.7",), ("203.0.113.7", 0)),  # the left one is the client's invention
        (("198.51.100.1", "203.0.113.7"), ("203.0.113.7", 0)),
        (("203.0.113.7, 10.0.0.6",), ("203.0.113.7", 0)),  # two balancers
        (("198.51.100.1,203.0.113.7,10.0.0.6 ,\t192.0.2.9",), ("203.0.113.7", 0)),
        (("10.0.0.6, 10.0.0.7",), ("10.0.0.6", 0)),  # nobody but balancers: the first of them
        (("unknown",), BALANCER),
        (("203.0.113.7, unknown",), BALANCER),  # what stands left of it, nobody vouches for
        (("203.0.113.7, unknown, 10.0.0.6",), ("10.0.0.6", 0)),
        (("",), BALANCER),
        ((",",), BALANCER),
        (("203.0.113.7:65536",), BALANCER),
        (("203.0.113.7:²",), BALANCER),
        (("203.0.113.007",), BALANCER),
        (("fe80::1%eth0",), BALANCER),
        (("[203.0.113.7",), BALANCER),
        (("[::1]4711",), BALANCER),
        (("1" * 5000,), BALANCER),
        ((",".join(["203.0.113.7"] + ["10.0.0.6"] * 16),), ("10.0.0.6", 0)),  # too many hops
        ((",".join(["203.0.113.7"] + ["10.0.0.6"] * 15),), ("203.0.113.7", 0)),
    ],
)
def test_who_is_behind_a_trusted_balancer(values: tuple[str, ...], found: tuple[str, int]) -> None:
    assert client(*values) == found


@pytest.mark.parametrize("peer", ["10.0.1.5", "192.0.2.10", "2001:db8:0:1::5", "203.0.113.1", "not an address"])
def test_from_anybody_else_it_means_nothing(peer: str) -> None:
    assert client("198.51.100.1", peer=(peer, 5)) == (peer, 5)


@pytest.mark.parametrize("peer", ["10.0.0.5", "192.0.2.9", "::ffff:10.0.0.5", "2001:db8::5", "2001:db8::5%eth0"])
def test_trusted_addresses_in_every_form(peer: str) -> None:
    assert client("203.0.113.7", peer=(peer, 5)) == ("203.0.113.7", 0)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_header_fails_or_hides_the_last_stranger(left: bytes, right: bytes) -> None:
    found = forwarded_client(BALANCER, [(b"x-forwarded-for", left), (b"x-forwarded-for", right)], TRUSTED)
    assert isinstance(found[0], str)
    assert 0 <= found[1] <= 65535
    spoofed = left.replace(b"203.0.113.7", b"") + b",203.0.113.7"
    assert forwarded_client(BALANCER, [(b"x-forwarded-for", spoofed)], TRUSTED) == ("203.0.113.7", 0)


def test_without_networks_nobody_is_trusted() -> None:
    assert not Networks()
    assert not Networks().has("10.0.0.5")
    with pytest.raises(ValueError, match="host bits"):
        Networks(["10.0.0.1/24"])
