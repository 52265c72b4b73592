"""Events for analysisd, with the header made from its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wazuh_comms_trio.transport.aio.datagram import WazuhAsyncAnalysisdQueue
from wazuh_comms_trio.wire.envelope import encode_json
from wazuh_comms_trio.wire.event import create_event_header


async def send_event(
    queue: WazuhAsyncAnalysisdQueue, location: str, event: str | Mapping[str, Any], *, source: str = "1"
) -> None:
    """Send one event: text, or a mapping that is written as JSON. ``location`` says where it is from and is escaped
    here.

    ``source`` is analysisd's queue char, ``1`` for a local file, ``2`` for syslog. Waits for room in the queue;
    a checkpoint as ``queue.send_msg`` is. ``WazuhInternalError`` 1012 for what analysisd would drop, cut or misread,
    ``WazuhError`` 1014 when it can't be sent.
    """
    header = create_event_header(source, location)
    await queue.send_msg(header, encode_json(event).decode() if isinstance(event, Mapping) else event)
