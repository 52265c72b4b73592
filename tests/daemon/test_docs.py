"""The programs of docs/testing.md run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trio.testing import MockClock

TEXT = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()


async def test_the_example(autojump_clock: MockClock) -> None:
    names: dict[str, Any] = {}
    program = next(block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "async def test_" in block)
    exec(compile(program, "docs/testing.md", "exec"), names)  # noqa: S102 - it is our own
    await names["test_an_event_reaches_the_engine"](autojump_clock)


def test_every_name_is_there() -> None:
    import wazuh_comms_trio.testing as testing

    public = {"open_daemon", "daemon_config", "AgentClient", "AgentProgram", "AgentExits", "connect_tcp", "Reply"}
    public |= {"ExchangeFailed", "ReplyRefused", "memory_connection", "MemoryListener", "stateless_event"}
    assert [name for name in public if name not in testing.__all__ or name not in TEXT] == []
