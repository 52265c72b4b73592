"""The blocking stream classes, against a peer that is played by hand."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.transport.peers import Listening, descriptors, frame, listening, receive_exactly, receive_frame
from wazuh_comms_trio.errors import (
    AnswerInvalid,
    BacklogFull,
    EmptyFrame,
    FrameTooLarge,
    PayloadTooLarge,
    PeerClosed,
    SocketTimeout,
    TruncatedFrame,
    WazuhError,
    WazuhException,
    WazuhInternalError,
)
from wazuh_comms_trio.transport.blocking.socket import WazuhSocket, WazuhSocketJSON


def test_one_exchange(server: Listening) -> None:
    with WazuhSocket(server.path) as sock:
        peer = server.accept()
        assert sock.path == server.path
        assert isinstance(sock.s, socket.socket)
        assert sock.MAX_SIZE == 65536
        assert sock.send(b"hello") == 9
        assert receive_exactly(peer, 9) == b"\x05\0\0\0hello"
        peer.sendall(frame(b"world\0"))
        assert sock.receive() == b"world\0"
    assert sock.s.fileno() == -1
    assert peer.recv(1) == b""
    sock.close()


def test_frames_that_came_together_are_told_apart(server: Listening) -> None:
    with WazuhSocket(server.path) as sock:
        peer = server.accept()
        peer.sendall(frame(b"one") + frame(b"two") + frame(b"three")[:5])
        assert sock.receive() == b"one"
        assert sock.receive() == b"two"
        peer.sendall(frame(b"three")[5:])
        assert sock.receive() == b"three"


def test_a_frame_in_pieces(server: Listening) -> None:
    payload = os.urandom(300_000)
    with WazuhSocket(server.path) as sock:
        peer = server.accept()

        def send_in_pieces() -> None:
            data = frame(payload)
            for i in range(0, len(data), 7777):
                peer.sendall(data[i : i + 7777])

        thread = threading.Thread(target=send_in_pieces)
        thread.start()
        assert sock.receive() == payload
        thread.join()


def test_the_largest_message_goes_out_whole(server: Listening) -> None:
    with WazuhSocket(server.path) as sock:
        peer = server.accept()
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.append(receive_frame(peer)))
        thread.start()
        assert sock.send(bytes(65536)) == 65540
        thread.join()
        assert received == [bytes(65536)]


def nothing_came(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        peer.recv(1)
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize(
    ("payload", "code", "kind"),
    [
        (bytes(65537), 1012, PayloadTooLarge),
        (b"", 1014, WazuhError),
        ("text", 1105, WazuhException),
        (None, 1105, WazuhException),
    ],
)
def test_what_must_not_be_sent_is_refused_before_its_first_byte(
    server: Listening, payload: Any, code: int, kind: type[WazuhException]
) -> None:
    with WazuhSocket(server.path) as sock:
        peer = server.accept()
        with pytest.raises(kind) as caught:
            sock.send(payload)
        assert caught.value.code == code
        assert nothing_came(peer)
        sock.send(b"still usable")


def test_raw_bytes(server: Listening) -> None:
    with WazuhSocket(server.path) as sock:
        peer = server.accept()
        assert sock.send(b"bare", None) == 4
        assert receive_exactly(peer, 4) == b"bare"
        peer.sendall(b"some")
        assert sock.receive(None) == b"some"
        peer.sendall(b"thing" + frame(b"framed"))
        assert sock.receive_raw() == b"thing" + frame(b"framed")
        peer.close()
        with pytest.raises(PeerClosed):
            sock.receive_raw()


def test_other_headers(server: Listening) -> None:
    with WazuhSocket(server.path) as sock:
        peer = server.accept()
        assert sock.send(b"abc", ">H") == 5
        assert receive_exactly(peer, 5) == b"\0\x03abc"
        peer.sendall(b"\0\x02ok")
        assert sock.receive(">H", 2) == b"ok"
        with pytest.raises(WazuhError, match=r"has 4 bytes, not 2"):
            sock.receive("<I", 2)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"", PeerClosed),
        (b"\x05", TruncatedFrame),
        (b"\x05\0\0\0abc", TruncatedFrame),
        (b"\0\0\0\0", EmptyFrame),
        (struct.pack("<I", 1001), FrameTooLarge),
    ],
)
def test_what_a_peer_may_do_wrong(server: Listening, sent: bytes, kind: type[WazuhError]) -> None:
    with WazuhSocket(server.path, max_receive_bytes=1000) as sock:
        peer = server.accept()
        peer.sendall(sent)
        peer.close()
        for _ in range(2):
            with pytest.raises(kind) as caught:
                sock.receive()
            assert caught.value.code == 1014
            assert isinstance(caught.value, WazuhError)
            assert caught.value.remediation is not None


def test_a_peer_that_is_gone(server: Listening) -> None:
    with WazuhSocket(server.path) as sock:
        server.accept().close()
        with pytest.raises(WazuhError, match=r"Error 1014 .*Broken pipe") as caught:
            sock.send(b"hello")
        assert isinstance(caught.value.__cause__, OSError)


def test_a_closed_socket_says_so(server: Listening) -> None:
    sock = WazuhSocket(server.path)
    sock.close()
    for use in (lambda: sock.send(b"x"), sock.receive, sock.receive_raw, sock.peer_credentials):
        with pytest.raises(WazuhError, match=r"Error 1014 .*this socket is closed"):
            use()
    assert "closed" in repr(sock)


# --- connecting ---


def test_a_missing_path(home: Path) -> None:
    with pytest.raises(
        WazuhInternalError, match=r"^Error 1013 - Unable to connect with socket: .*No such file"
    ) as caught:
        WazuhSocket(str(home / "none"))
    assert caught.value.remediation == "Restart Wazuh to restore the sockets"


def test_nobody_listens(home: Path) -> None:
    with listening(home / "s"):
        pass
    with pytest.raises(WazuhInternalError, match=r"^Error 1121 - Error connecting with socket: ") as caught:
        WazuhSocket(str(home / "s"))
    assert caught.value.remediation == "Ensure that the module is running and properly configured"


def test_a_full_backlog(home: Path) -> None:
    with listening(home / "s", backlog=0) as server, WazuhSocket(server.path):
        with pytest.raises(SocketTimeout, match=r"no room for another connection"):
            WazuhSocket(server.path, timeout=0.02)
        with pytest.raises(SocketTimeout):
            WazuhSocket(server.path, timeout=0)
        assert issubclass(BacklogFull, WazuhInternalError)


def test_both_releases_places(home: Path) -> None:
    asked, there = home / "queue/sockets/wdb", home / "queue/db/wdb"
    with listening(there) as server, WazuhSocket(str(asked)) as sock:
        sock.send(b"x")
        assert receive_frame(server.accept()) == b"x"
        asked.parent.mkdir()
        with listening(asked) as first, WazuhSocket(str(asked)) as other:
            other.send(b"y")
            assert receive_frame(first.accept()) == b"y"
        # Left over by another release: refused, and the daemon is elsewhere.
        WazuhSocket(str(asked)).close()
    with pytest.raises(WazuhInternalError, match=r"1121"):
        WazuhSocket(str(asked))
    asked.unlink()
    with pytest.raises(WazuhInternalError, match=r"1121"):
        WazuhSocket(str(asked))
    there.unlink()
    with pytest.raises(WazuhInternalError, match=r"1013"):
        WazuhSocket(str(asked))


# --- time ---


def test_receive_runs_out_of_time_and_goes_on(server: Listening) -> None:
    with WazuhSocket(server.path, timeout=0.02) as sock:
        peer = server.accept()
        peer.sendall(frame(b"late")[:6])
        with pytest.raises(SocketTimeout) as caught:
            sock.receive()
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, WazuhError)
        assert caught.value.code == 1014
        assert str(caught.value).startswith("Error 1014 - Error communicating with socket: ")
        peer.sendall(frame(b"late")[6:])
        assert sock.receive() == b"late"
        assert sock.timeout == 0.02
        assert sock.s.gettimeout() == 0.02


def test_a_peer_that_drips_does_not_stretch_the_time(server: Listening) -> None:
    stop = threading.Event()

    def drip(peer: socket.socket) -> None:
        data = iter(frame(bytes(65000)))
        while not stop.wait(0.002):
            peer.sendall(bytes([next(data)]))

    with WazuhSocket(server.path, timeout=0.05) as sock:
        thread = threading.Thread(target=drip, args=(server.accept(),))
        thread.start()
        try:
            with pytest.raises(SocketTimeout):
                sock.receive()
        finally:
            stop.set()
            thread.join()


def test_a_message_sent_in_part_closes_the_socket(server: Listening) -> None:
    class Large(WazuhSocket):
        MAX_SIZE = 10_000_000

    with Large(server.path, timeout=0.02) as sock:
        server.accept()
        with pytest.raises(SocketTimeout):
            sock.send(bytes(9_000_000))
        assert sock.s.fileno() == -1


def test_a_full_buffer_leaves_the_socket_usable(server: Listening) -> None:
    with WazuhSocket(server.path, timeout=0) as sock:
        peer = server.accept()
        filled = 0
        with suppress(BlockingIOError):
            while True:
                filled += sock.s.send(bytes(1000))
        with pytest.raises(SocketTimeout):
            sock.send(b"no room")
        receive_exactly(peer, filled)
        sock.send(b"room")
        assert receive_frame(peer) == b"room"


def test_time_may_be_changed(server: Listening) -> None:
    with WazuhSocket(server.path) as sock:
        assert sock.timeout is None
        sock.timeout = 0.01
        with pytest.raises(SocketTimeout):
            sock.receive()
    with WazuhSocket(server.path, timeout=0.01) as sock:
        sock.timeout = None
        # What limited the connect must not limit a send that now may take as long as it takes.
        assert sock.s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == bytes(16)
    with pytest.raises(ValueError, match=r"negative"):
        WazuhSocket(server.path, timeout=-1)


def test_no_descriptor_leaks(server: Listening, home: Path) -> None:
    before = descriptors()
    for _ in range(500):
        with WazuhSocket(server.path) as sock:
            server.accept().close()
            with pytest.raises(WazuhError):
                sock.receive()
        with pytest.raises(WazuhInternalError):
            WazuhSocket(str(home / "none"))
    assert descriptors() == before


# --- JSON ---


def test_json_exchange(server: Listening) -> None:
    with WazuhSocketJSON(server.path) as sock:
        peer = server.accept()
        message = {"command": "agent", "parameters": {"id": "001"}}
        assert sock.send(message) == 4 + len(json.dumps(message))
        assert json.loads(receive_frame(peer)) == message
        for tail in (b"", b"\0"):
            peer.sendall(frame(b'{"error": 0, "message": "ok", "data": [1, 2]}' + tail))
            assert sock.receive() == [1, 2]
        peer.sendall(frame(b'{"error": 0, "data": 1}'))
        assert sock.receive(raw=True) == {"error": 0, "data": 1}
        peer.sendall(frame(b'{"error": 5, "message": "no"}'))
        assert sock.receive(raw=True) == {"error": 5, "message": "no"}


def test_a_daemons_error(server: Listening) -> None:
    with WazuhSocketJSON(server.path) as sock:
        server.accept().sendall(frame(b'{"error": 9008, "message": "Duplicate name"}'))
        with pytest.raises(WazuhException, match=r"^Error 9008 - Duplicate name$"):
            sock.receive()


@pytest.mark.parametrize("answer", [b"ok", b"[]", b"\xff"])
def test_an_answer_of_another_form(server: Listening, answer: bytes) -> None:
    with WazuhSocketJSON(server.path) as sock:
        server.accept().sendall(frame(answer))
        with pytest.raises(AnswerInvalid, match=r"Error 1014"):
            sock.receive()


def test_a_message_that_json_cannot_say(server: Listening) -> None:
    with WazuhSocketJSON(server.path) as sock, pytest.raises(WazuhInternalError, match=r"Error 1012"):
        sock.send({1, 2})


@dataclass
class AgentName:
    id: str
    name: str


def test_request_decodes_into_a_type(server: Listening) -> None:
    with WazuhSocketJSON(server.path) as sock:
        peer = server.accept()
        peer.sendall(frame(b'{"error": 0, "data": [{"id": "001", "name": "a"}]}'))
        assert sock.request({"command": "x"}, type=list[AgentName]) == [AgentName("001", "a")]
        peer.sendall(frame(b'{"error": 0, "data": [{"id": "001"}]}'))
        with pytest.raises(AnswerInvalid, match=r"doesn't fit its type.*name"):
            sock.request({"command": "x"}, type=list[AgentName])
        peer.sendall(frame(b'{"error": 0, "data": 5}'))
        assert sock.request({"command": "status"}) == 5


def test_request_validates_what_carries_a_version(server: Listening) -> None:
    with WazuhSocketJSON(server.path) as sock:
        peer = server.accept()
        with pytest.raises(WazuhInternalError, match=r"Error 1012 .*schema"):
            sock.request({"version": 2, "command": "x"})
        with pytest.raises(WazuhInternalError, match=r"Error 1012 .*schema"):
            sock.request({"a": 1}, schema={"type": "object", "properties": {"a": {"type": "string"}}})
        assert nothing_came(peer)


def test_a_request_out_of_time_gives_the_connection_up(server: Listening) -> None:
    with WazuhSocketJSON(server.path, timeout=0.01) as sock:
        server.accept()
        with pytest.raises(SocketTimeout):
            sock.request({"command": "x"})
        with pytest.raises(WazuhError, match=r"closed"):
            sock.receive()


def test_a_request_that_fails_otherwise_does_so_too(server: Listening) -> None:
    with WazuhSocketJSON(server.path) as sock:
        server.accept().sendall(bytes(4))
        with pytest.raises(EmptyFrame):
            sock.request({"command": "x"})
        assert sock.s.fileno() == -1
