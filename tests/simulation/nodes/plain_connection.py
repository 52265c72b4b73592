"""A server's side of HTTP/1.1, as h11 has it, for a fifth of its time: requests of the form that nearly all are."""

from __future__ import annotations

import re
from typing import Any, Final

import h11
from h11._headers import Headers

__all__ = ["PlainConnection"]

_LINE: Final = re.compile(rb"([A-Z]+) ([!-~]+) HTTP/1\.1\r\n")
_FIELD: Final = re.compile(rb"([-!#$%&'*+.^_`|~0-9a-zA-Z]+): ([!-~](?:[ \t!-~]*[!-~])?)\r\n")
#: What h11 acts upon, beside a length.
_LEFT_TO_H11: Final = frozenset({b"connection", b"expect", b"transfer-encoding", b"upgrade"})


class PlainConnection:
    """What the fakes use of ``h11.Connection(h11.SERVER)``. From a request on that isn't of the plain form h11 itself
    goes on, which says what is wrong with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0  # bytes of the body
        self._in_body = self._ended = False
        self._h11: h11.Connection | None = None

    def receive_data(self, data: bytes) -> None:
        if self._h11 is not None:
            self._h11.receive_data(data)
        elif data:
            self._buffer += data
        else:
            self._ended = True

    def next_event(self) -> Any:
        if self._h11 is not None:
            return self._h11.next_event()
        if self._in_body:
            return self._next_of_body()
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4 and not self._ended:
            return h11.NEED_DATA
        request = self._plain_request(end) if end >= 4 else None
        if request is None:
            return self._left_to_h11()
        del self._buffer[:end]
        self._in_body = True
        return request

    def _plain_request(self, end: int) -> h11.Request | None:
        line = _LINE.match(self._buffer)
        if line is None:
            return None
        fields = _FIELD.findall(self._buffer, line.end(), end - 2)
        headers = [(name.lower(), value) for name, value in fields]
        names = [name for name, _ in headers]
        if sum(len(name) + len(value) + 4 for name, value in fields) != end - 2 - line.end():
            return None
        if not _LEFT_TO_H11.isdisjoint(names) or len(set(names)) != len(names) or b"host" not in names:
            return None
        length = dict(headers).get(b"content-length", b"0")
        if not length.isdigit():
            return None
        self._left = int(length)
        whole = [(name, name, value) for name, value in headers]
        return h11.Request(method=line[1], target=line[2], headers=Headers(whole), _parsed=True, http_version=b"1.1")

    def _next_of_body(self) -> Any:
        if not self._left:
            return h11.EndOfMessage()
        if not self._buffer:
            if self._ended:
                raise h11.RemoteProtocolError("the peer ended in the middle of a body")
            return h11.NEED_DATA
        data = bytes(self._buffer[: self._left])
        del self._buffer[: self._left]
        self._left -= len(data)
        return h11.Data(data=data)

    def _left_to_h11(self) -> Any:
        self._h11 = h11.Connection(h11.SERVER)
        if self._buffer:
            self._h11.receive_data(bytes(self._buffer))
        if self._ended:
            self._h11.receive_data(b"")
        return self._h11.next_event()

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
        """A whole answer, to the byte as h11 writes it; its length is in ``headers``."""
        if self._h11 is not None:
            sent = [h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()]
            return b"".join(self._h11.send(event) or b"" for event in sent)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return f"HTTP/1.1 {status} \r\n{lines}\r\n".encode() + body

    def start_next_cycle(self) -> None:
        self._in_body = False
        if self._h11 is not None:
            self._h11.start_next_cycle()
