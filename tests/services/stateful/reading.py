"""What the tests of the packet reader share."""

from __future__ import annotations

from typing import Any

from tests.services.bench import A1
from wazuh_comms_trio.backends.interfaces import DocumentOperation
from wazuh_comms_trio.config.models import Events
from wazuh_comms_trio.services.stateful.packet_reader import Event, Unusable, open_packet


def read(packet: bytes, agent_id: str = A1, **settings: Any) -> list[Event]:
    reader = open_packet(packet, agent_id, Events(**settings))
    events = []
    while not reader.exhausted:
        events += reader.read(10**6, 10**9)
    return events


def reasons(events: list[Event]) -> list[str | None]:
    return [item.action.reason if isinstance(item.action, Unusable) else None for item in events]


def operation(item: Event) -> DocumentOperation:
    assert isinstance(item.action, DocumentOperation)
    return item.action
