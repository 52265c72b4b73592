"""HTTP for plain programs, on the standard library's ``http.client``: :class:`HTTPClient`. Never imports trio."""

from __future__ import annotations

import http.client
import os
import select
import socket
from time import monotonic
from typing import Any, NoReturn, TypeVar

from wazuh_comms_trio.errors import SocketTimeout, WazuhException
from wazuh_comms_trio.transport.blocking.socket import connect_socket
from wazuh_comms_trio.transport.closing import ClosedAtExit
from wazuh_comms_trio.transport.http.call import MAX_ANSWER_BYTES, HTTPAnswer, HTTPCall, HTTPRequest
from wazuh_comms_trio.transport.http.errors import (
    HTTPConnectError,
    HTTPFailed,
    HTTPTimeout,
    numbers_of,
)
from wazuh_comms_trio.transport.http.target import http_target
from wazuh_comms_trio.transport.releases.release import Release
from wazuh_comms_trio.transport.switches import ReleaseName

T = TypeVar("T")


class HTTPClient(ClosedAtExit):
    """One of the server's HTTP sockets (``wdb-http``, ``engine``, ``vulnerability-detector``, ``inventory-sync``,
    ``remoted-admin``), for calls one after another. Connects when asked to, not before.

    ``release`` decides on routes and places; None finds it out. ``timeout`` in seconds limits each call as a whole. A
    connection is kept where the service keeps it, except for calls that mustn't be sent twice, and in the process that
    made it. Errors: see :class:`HTTPError`. An object belongs to one thread at a time.
    """

    def __init__(
        self,
        service: str,
        *,
        home: str | os.PathLike[str] | None = None,
        release: ReleaseName | None = None,
        timeout: float = 10.0,
        require_owner: int | str | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        target = http_target(service, release, home)
        self.service: str = target.daemon.name
        self.release: Release = target.release
        self.timeout: float = timeout
        self._target = target
        self._numbers = numbers_of(self.service)
        self._require_owner = require_owner
        self._limit = max_answer_bytes
        # At most one; a list, since one thread only can take it.
        self._kept: list[_Connection] = []

    def __repr__(self) -> str:
        return f"<HTTPClient {self.service} of {self.release}: {'connected' if self._kept else 'not connected'}>"

    def close(self) -> None:
        """Close the connection that is kept, if any. The next call makes a new one."""
        while self._kept:
            self._kept.pop().close()

    def call(self, call: HTTPCall[T]) -> T:
        """Carry out a typed call, such as ``db_agent_groups(1)``; returns what it says.

        :class:`NotInRelease` (1012) for a route that this release doesn't have, before anything is sent;
        :class:`HTTPStatusError` for an answer of 400 and above; ``ValueError`` for another service's call.
        """
        if call.service != self.service:
            raise ValueError(f"{call!r} is none for {self.service}")
        return call.result(self.send(call.prepare(self.release), repeatable=call.repeatable))

    def send(self, request: HTTPRequest, *, repeatable: bool = False) -> HTTPAnswer:
        """Send any request, return its answer whatever its status. ``repeatable``: it may be sent again when a kept
        connection turned out to be closed."""
        deadline = monotonic() + self.timeout
        kept = self._take_kept() if repeatable else None
        if kept is not None:
            try:
                return self._exchange(kept, request, deadline)
            except HTTPFailed:
                if kept.heard:
                    raise
        return self._exchange(self._connect(deadline), request, deadline)

    def _take_kept(self) -> _Connection | None:
        try:
            kept = self._kept.pop()
        except IndexError:
            return None
        if kept.ended() or kept.made_by != os.getpid():
            kept.close()
            return None
        return kept

    def _connect(self, deadline: float) -> _Connection:
        first: WazuhException | None = None
        for place in self._target.places:
            left = max(deadline - monotonic(), 1e-3)
            try:
                return _Connection(connect_socket(_Socket, place, left, self._require_owner))
            except SocketTimeout as exc:
                raise HTTPTimeout(self._numbers.timeout, f"{place}: no connection within {self.timeout:g} s") from exc
            except WazuhException as exc:
                first = first or exc
        assert first is not None  # a service has a place
        raise HTTPConnectError(self._numbers.connect, first.message) from first

    def _exchange(self, connection: _Connection, request: HTTPRequest, deadline: float) -> HTTPAnswer:
        """Keeps the connection where that is right, closes it otherwise."""
        keep = False
        try:
            answer, keep = connection.exchange(request, deadline, self._limit)
            keep = keep and self._target.daemon.reusable
            return answer
        except TimeoutError as exc:
            raise HTTPTimeout(self._numbers.timeout, f"no whole answer within {self.timeout:g} s") from exc
        except (OSError, http.client.HTTPException) as exc:
            self._failed(exc, connection)
        finally:
            if keep and not self._kept:
                self._kept.append(connection)
            else:
                connection.close()

    def _failed(self, exc: Exception, connection: _Connection) -> NoReturn:
        if isinstance(exc, http.client.RemoteDisconnected | ConnectionError):
            reason = "the connection was closed before the answer was complete"
        else:
            reason = f"the answer isn't sound HTTP: {exc!r}"
        raise HTTPFailed(self._numbers.failed, reason, sent=connection.sent) from exc


class _TooLarge(http.client.HTTPException):
    pass


class _Connection(http.client.HTTPConnection):
    """A connection that is there already. ``sent`` and ``heard``: bytes of a request went out, of an answer came;
    ``made_by``: the number of the process that connected."""

    def __init__(self, sock: _Socket) -> None:
        super().__init__("localhost")
        self.sent = False
        self.heard = False
        self.made_by: int = os.getpid()
        self.own = sock
        self.sock = self.own  # what http.client needs of a socket

    def connect(self) -> None:
        raise http.client.NotConnected("this connection was closed")

    def ended(self) -> bool:
        """Whether the peer has closed it, or said something unasked."""
        poll = select.poll()
        poll.register(self.own.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def exchange(self, request: HTTPRequest, deadline: float, limit: int) -> tuple[HTTPAnswer, bool]:
        """The answer, and whether another request may follow."""
        self.sent = self.heard = False
        self.own.deadline, self.own.ended = deadline, False
        self.own.allow()
        self.putrequest(request.method, request.target, skip_accept_encoding=True)
        if request.body is not None:
            self.putheader("Content-Length", str(len(request.body)))
        for name, value in request.headers:
            self.putheader(name, value)
        self.sent = True
        self.endheaders(request.body or None)
        self.own.allow()
        response = self.getresponse()
        self.heard = True
        try:
            if self.own.ended:  # http.client takes a head that ends in the middle for a whole one
                raise http.client.IncompleteRead(b"")
            body = _read(response, limit)
        finally:
            response.close()  # it holds the socket open
        headers = {name.lower(): value for name, value in response.getheaders()}
        return HTTPAnswer(response.status, headers, body), not response.will_close


def _read(response: http.client.HTTPResponse, limit: int) -> bytes:
    body = response.read(limit + 1) if response.length is None else b""
    if len(body) > limit or (response.length or 0) > limit:
        raise _TooLarge(f"more than {limit} bytes")
    return body + response.read()


class _Socket(socket.socket):
    """Every read is given what is left until ``deadline``, so that a peer that drips can't stretch the time."""

    deadline: float = 0.0
    #: The peer's end was met.
    ended: bool = False

    def allow(self) -> None:
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the time given ran out")
        self.settimeout(left)

    def recv_into(self, *args: Any, **named: Any) -> int:
        self.allow()
        count = super().recv_into(*args, **named)
        self.ended = self.ended or not count
        return count
