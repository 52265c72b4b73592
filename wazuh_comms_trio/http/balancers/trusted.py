"""The balancers that a listener trusts, and a word when one of them isn't set up as the configuration says."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

import trio
from attrs import define, field

from wazuh_comms_trio.foundation.outage_log import LogInterval
from wazuh_comms_trio.http.balancers.client_address import Address, Networks, forwarded_client

__all__ = ["TrustedBalancers"]

logger = logging.getLogger(__name__)

#: Seconds between two warnings.
WARNING_INTERVAL: Final = 60.0


@define(eq=False)
class TrustedBalancers:
    """``proxy_protocol``: whose connections begin with a PROXY header. ``forwarded_for``: whose ``X-Forwarded-For``
    counts.
    """

    proxy_protocol: Networks = field(factory=Networks)
    forwarded_for: Networks = field(factory=Networks)
    _warning_interval: LogInterval = field(init=False, factory=lambda: LogInterval(WARNING_INTERVAL, trio.current_time))

    @classmethod
    def of(cls, proxy_protocol: Iterable[str], forwarded_for: Iterable[str]) -> TrustedBalancers:
        return cls(Networks(proxy_protocol), Networks(forwarded_for))

    def client(self, peer: Address, headers: Iterable[tuple[bytes, bytes]]) -> Address:
        """The client's address behind a peer: see ``forwarded_client``."""
        return forwarded_client(peer, headers, self.forwarded_for)

    def refused(self, peer: object, problem: Exception) -> None:
        """Logs that a connection was closed for its PROXY header. A warning once a minute: where the balancer sends
        none no agent is served.
        """
        level = logging.WARNING if self._warning_interval.is_over() else logging.DEBUG
        logger.log(level, "%s is in balancers.proxy_protocol, but its PROXY header %s", peer, problem)
