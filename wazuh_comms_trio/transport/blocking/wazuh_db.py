"""wazuh-db for programs without an event loop: :class:`WazuhDBClient`, with one answer, pages, or streamed rows.

    with WazuhDBClient(timeout=5) as db:
        agents = db.query("global get-all-agents")
        for page in db.pages("global get-all-agents"):
            ...
        for row in db.rows("agent 001 package get"):
            ...

Imports neither trio nor anything outside the standard library. An object belongs to one thread at a time; a second one
that asks meanwhile is told so.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Generator, Iterator, Mapping
from threading import get_ident
from time import monotonic
from typing import Any, Final, TypeVar, overload

from wazuh_comms_trio.errors import SocketTimeout, WazuhInternalError
from wazuh_comms_trio.transport.blocking.socket import WazuhSocket
from wazuh_comms_trio.transport.closing import ClosedAtExit
from wazuh_comms_trio.transport.conversation import Conversation, decode_as
from wazuh_comms_trio.transport.switches import ReleaseName, resolve
from wazuh_comms_trio.wire.envelope import TextErrors
from wazuh_comms_trio.wire.framing import MAX_RECEIVE_BYTES
from wazuh_comms_trio.wire.wdb import DUE, WdbReply, parse_reply
from wazuh_comms_trio.wire.wdb_paging import (
    Due,
    Paging,
    check_query,
    due_meaning,
    joined,
    last_id_of,
    rows_of,
    single,
)

T = TypeVar("T")

DAEMON: Final = "wazuh-db"


class WazuhDBClient(ClosedAtExit):
    """A connection to wazuh-db, made when it is first needed and made anew where the daemon has ended it.

    ``timeout`` in seconds limits each ``query`` as a whole, whatever its pages or rows, and of ``pages`` and ``rows``
    each step; None waits as long as it takes. When it runs out: ``SocketTimeout`` (1014, a ``TimeoutError`` too). After
    any error but the daemon's own the connection is closed, so that a late answer reaches nobody. After a fork the
    child makes a connection of its own; a thread that asks while another one does is refused (1014). ``home``,
    ``release``, ``text_errors``, ``require_owner`` and ``max_receive_bytes`` as in ``open_pool``.
    """

    def __init__(
        self,
        *,
        home: str | os.PathLike[str] | None = None,
        release: ReleaseName | None = None,
        timeout: float | None = None,
        max_receive_bytes: int = MAX_RECEIVE_BYTES,
        require_owner: int | str | None = None,
        text_errors: TextErrors = "replace",
    ) -> None:
        target = resolve(DAEMON, release, home)
        self.path: str = target.daemon.places(target.home)[0]
        #: seconds, None without a limit; may be set at any time
        self.timeout: float | None = timeout
        self._max_receive_bytes = max_receive_bytes
        self._require_owner = require_owner
        self._text_errors: TextErrors = text_errors
        self._sock: WazuhSocket | None = None
        self._events = select.poll()
        # The process that this is used in, and "thread" -> the one that is at it: a dictionary is set in one step.
        self._process = os.getpid()
        self._using: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<WazuhDBClient {self.path}: {'not connected' if self._sock is None else 'connected'}>"

    def close(self) -> None:
        """Close the connection. Doing it again does nothing; the next query makes a new one."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    @overload
    def query(self, query: str | Mapping[str, Any], *, type: type[T]) -> T: ...

    @overload
    def query(self, query: str | Mapping[str, Any], *, type: None = None) -> Any: ...

    def query(self, query: str | Mapping[str, Any], *, type: Any = None) -> Any:
        """One query's whole answer, all pages and rows collected. Arguments, result and the errors of an answer as
        ``WazuhDB.query``; the connection's errors as ``WazuhSocket``."""
        deadline = self._deadline()
        if isinstance(query, Mapping):
            conversation = Conversation(query, daemon=DAEMON)
            return conversation.result(self._exchange(conversation.payload, deadline), type, self._text_errors)
        text = check_query(query)
        match due_meaning(text):
            case Due.ROWS:
                data: Any = list(self._rows(text, lambda: deadline))
            case Due.PAGES:
                data = joined(list(self._pages(Paging(text, last_id_of), lambda: deadline)))
            case None:
                data = single(self._reply(text, deadline), text).data()
        return data if type is None else decode_as(data, type)

    def pages(self, query: str, *, last_id: Callable[[Any], int | str] = last_id_of) -> Iterator[Any]:
        """Iterate over an answer that comes in pages, as ``WazuhDB.pages``. Each page is asked for when it is needed;
        leaving early is free."""
        return self._pages(Paging(check_query(query), last_id), self._deadline)

    def rows(self, query: str) -> Generator[Any, None, None]:
        """Iterate over streamed rows, as ``WazuhDB.rows``, over a connection of their own. Left early, it is closed by
        ``close()`` on what this returns, or when that is forgotten."""
        return self._rows(check_query(query), self._deadline)

    def replies(self, query: str) -> Generator[WdbReply, None, None]:
        """Each answer as it came, over all pages or streamed rows: what follows a ``due`` is asked for where the query
        has a place for the last id, and otherwise waited for. ``timeout`` limits all of it."""
        deadline = self._deadline()
        text = check_query(query)
        if due_meaning(text) is not Due.PAGES:
            yield from self._frames(text, lambda: deadline)
            return
        paging = Paging(text, last_id_of)
        while paging.next_query is not None:
            reply = self._reply(paging.next_query, deadline, paged=True)
            paging.take(reply)
            yield reply

    # --- one answer after another -------------------------------------------------------------------------------------

    def _pages(self, paging: Paging, deadline: Callable[[], float | None]) -> Iterator[Any]:
        while paging.next_query is not None:
            yield paging.take(self._reply(paging.next_query, deadline(), paged=True))

    def _rows(self, text: str, deadline: Callable[[], float | None]) -> Generator[Any, None, None]:
        for reply in self._frames(text, deadline):
            yield from rows_of(reply)

    def _frames(self, text: str, deadline: Callable[[], float | None]) -> Generator[WdbReply, None, None]:
        # After a streamed answer wazuh-db gives that connection a send timeout of 1 s, for ever: so this is one of its
        # own, which isn't used again.
        with self._connect(deadline()) as sock:
            sock.send(text.encode())
            while True:
                sock.timeout = _left(deadline())
                reply = parse_reply(sock.receive(), self._text_errors)
                yield reply
                if reply.status != DUE:
                    return

    def _reply(self, text: str, deadline: float | None, *, paged: bool = False) -> WdbReply:
        reply = parse_reply(self._exchange(text.encode(), deadline), self._text_errors)
        if reply.status == DUE and not paged:
            self.close()  # rows are being streamed: they must not become the next query's answer
        return reply

    # --- the connection -----------------------------------------------------------------------------------------------

    def _deadline(self) -> float | None:
        return None if self.timeout is None else monotonic() + self.timeout

    def _connect(self, deadline: float | None) -> WazuhSocket:
        return WazuhSocket(
            self.path,
            timeout=_left(deadline),
            require_owner=self._require_owner,
            max_receive_bytes=self._max_receive_bytes,
        )

    def _exchange(self, payload: bytes, deadline: float | None) -> bytes:
        """One request, one frame."""
        if self._process != (process := os.getpid()):
            self._process, self._using = process, {}  # forked: the connection, and who is at it, are the parent's
            self.close()
        thread = get_ident()
        if self._using.get("thread") == thread:
            self.close()  # a signal's handler, amid an exchange: the answer that is under way isn't for it
        elif self._using.setdefault("thread", thread) != thread:
            raise WazuhInternalError(1014, "another thread is using this client: each thread needs one of its own")
        try:
            if self._sock is not None and self._events.poll(0):
                self.close()  # the daemon ended it, or sent what nobody had asked for
            if self._sock is None:
                self._sock = self._connect(deadline)
                self._events = select.poll()
                self._events.register(self._sock.s, select.POLLIN | select.POLLRDHUP)
            self._sock.timeout = _left(deadline)
            self._sock.send(payload)
            self._sock.timeout = _left(deadline)
            return self._sock.receive()
        except BaseException:  # KeyboardInterrupt, too
            self.close()
            raise
        finally:
            self._using.pop("thread", None)


def _left(deadline: float | None) -> float | None:
    """Seconds until then. ``SocketTimeout`` (1014) when there are none."""
    if deadline is None:
        return None
    left = deadline - monotonic()
    if left <= 0:
        raise SocketTimeout(1014, "the time given ran out")
    return left
