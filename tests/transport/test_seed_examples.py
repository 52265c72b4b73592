"""The five published examples, as they stand, with /var/ossec replaced by a temporary home."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.transport.peers import frame, listening, queue_socket, receive_frame
from wazuh_comms_trio import transport

USAGE_PATTERN = """
with WazuhSocket('/path/to/socket') as sock:
    sock.send(message_bytes)
    response = sock.receive()
"""

SYNCHRONOUS = """
# Send command to wazuh-db daemon
with WazuhSocketJSON('/var/ossec/queue/sockets/wdb') as sock:
    response = sock.send({'command': 'agent', 'parameters': {'id': '001'}})
    data = sock.receive()
"""

ASYNCHRONOUS = """
# Async communication with task manager
async def communicate_with_daemon():
    sock = WazuhAsyncSocketJSON()
    await sock.connect('/var/ossec/queue/sockets/task')
    await sock.send({'command': 'status'})
    response = await sock.receive()
    await sock.close()
    return response
"""

COMMAND = """
# Send restart command to specific agent
with WazuhQueue('/var/ossec/queue/alerts/ar') as queue:
    result = queue.send_msg_to_agent(
        msg='restart-ossec0',
        agent_id='001',
        msg_type=''
    )
"""

EVENT = """
# Send custom event to analysis daemon
with WazuhAnalysisdQueue('/var/ossec/queue/sockets/queue') as queue:
    queue.send_msg(
        msg_header='1:wazuh-api:',
        msg='{"timestamp":"2023-01-01T00:00:00","event":"custom"}'
    )
"""


def names_after(program: str, home: Path, **names: Any) -> dict[str, Any]:
    names = {name: getattr(transport, name) for name in transport.__all__} | names
    exec(program.replace("/var/ossec", str(home)), names)  # noqa: S102 -- the text above
    return names


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """One request, one answer, in a thread."""
    seen: list[bytes] = []
    with ExitStack() as stack:
        server = stack.enter_context(listening(path))

        def serve() -> None:
            peer = server.accept()
            seen.append(receive_frame(peer))
            peer.sendall(frame(answer))

        thread = threading.Thread(target=serve)
        thread.start()
        stack.callback(thread.join)
        yield seen


def test_usage_pattern(home: Path) -> None:
    with answering(home / "s", b"answer\0") as seen:
        program = USAGE_PATTERN.replace("/path/to/socket", str(home / "s"))
        assert names_after(program, home, message_bytes=b"message")["response"] == b"answer\0"
    assert seen == [b"message"]


@pytest.mark.parametrize("place", ["queue/sockets/wdb", "queue/db/wdb"])
def test_synchronous_daemon_communication(home: Path, place: str) -> None:
    with answering(home / place, b'{"error": 0, "message": "ok", "data": [{"id": "001"}]}') as seen:
        names = names_after(SYNCHRONOUS, home)
    (request,) = seen
    assert json.loads(request) == {"command": "agent", "parameters": {"id": "001"}}
    assert names["response"] == 4 + len(request)
    assert names["data"] == [{"id": "001"}]


@pytest.mark.parametrize("place", ["queue/sockets/task", "queue/tasks/task"])
def test_asynchronous_daemon_communication(home: Path, place: str) -> None:
    with answering(home / place, b'{"error": 0, "data": [{"status": "done"}], "message": "Success"}') as seen:
        assert trio.run(names_after(ASYNCHRONOUS, home)["communicate_with_daemon"]) == [{"status": "done"}]
    assert json.loads(seen[0]) == {"command": "status"}


def received(sock: socket.socket) -> bytes:
    return sock.recv(70_000)


def test_agent_command_distribution(home: Path) -> None:
    with queue_socket(home / "queue/alerts/ar") as reader:
        assert names_after(COMMAND, home)["result"] == "Restarting agent"
        text = b"(msg_to_agent) [] NNS 001 restart-ossec0 - null (from_the_server) (no_rule_id)"
        assert received(reader) == text


def test_event_injection_to_analysisd(home: Path) -> None:
    with queue_socket(home / "queue/sockets/queue") as reader:
        names_after(EVENT, home)
        assert received(reader) == b'1:wazuh-api:{"timestamp":"2023-01-01T00:00:00","event":"custom"}'
