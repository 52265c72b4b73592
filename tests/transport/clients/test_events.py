"""Events for analysisd, as their reader understands them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from wazuh_comms_trio.errors import WazuhError, WazuhInternalError
from wazuh_comms_trio.testing import EventMessage, FakeQueue, open_fake_queue
from wazuh_comms_trio.transport import ANALYSISD_QUEUE, WazuhAsyncAnalysisdQueue, send_event


@pytest.fixture
async def analysisd(tmp_path: Path) -> AsyncIterator[FakeQueue]:
    async with open_fake_queue("analysisd", home=tmp_path) as queue:
        yield queue


@pytest.fixture
async def queue(analysisd: FakeQueue, tmp_path: Path) -> AsyncIterator[WazuhAsyncAnalysisdQueue]:
    async with await WazuhAsyncAnalysisdQueue.from_path(str(tmp_path / ANALYSISD_QUEUE)) as queue:
        yield queue


async def test_events(queue: WazuhAsyncAnalysisdQueue, analysisd: FakeQueue) -> None:
    await send_event(queue, "/var/log/x", "first: a|b\nsecond line")
    await send_event(queue, "C:|logs", {"a": [1, "é"]}, source="2")
    await analysisd.wait_datagrams(2)
    assert analysisd.messages[0] == EventMessage("1", "/var/log/x", "first: a|b\nsecond line")
    second = analysisd.messages[1]
    assert isinstance(second, EventMessage)
    assert (second.queue, second.location, json.loads(second.message)) == ("2", "C:|logs", {"a": [1, "é"]})
    assert analysisd.dropped == []


@pytest.mark.parametrize(
    ("location", "event", "source"),
    [
        ("", "x", "1"),
        ("a\nb", "x", "1"),
        ("a", "", "1"),
        ("a", "x\0y", "1"),
        ("a", "x" * 65_536, "1"),
        ("a", "x", "z"),
        ("a", {"x": {1}}, "1"),
        ("a", 5, "1"),
    ],
)
async def test_refused(
    queue: WazuhAsyncAnalysisdQueue, analysisd: FakeQueue, location: str, event: Any, source: str
) -> None:
    with pytest.raises(WazuhInternalError) as caught:
        await send_event(queue, location, event, source=source)
    assert caught.value.code == 1012
    assert analysisd.datagrams == []


async def test_reader_gone(queue: WazuhAsyncAnalysisdQueue, analysisd: FakeQueue) -> None:
    analysisd.close()
    with pytest.raises(WazuhError) as caught:
        await send_event(queue, "a", "x")
    assert caught.value.code == 1014
