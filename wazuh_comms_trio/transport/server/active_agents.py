"""The agents that are connected, and their versions. Pure: queries out, answers in."""

from __future__ import annotations

from typing import Any, Final

from wazuh_comms_trio.errors import AnswerInvalid
from wazuh_comms_trio.transport.http.call import HTTPCall
from wazuh_comms_trio.transport.http.wazuh_db import db_all_agents
from wazuh_comms_trio.wire.wdb import DUE, parse_reply
from wazuh_comms_trio.wire.wdb_paging import items_of, last_id_of, next_page

_FIRST: Final = "global get-agents-by-connection-status 0 active"


class ActiveAgents:
    """The pages of wazuh-db's list. ``query`` is the next question, None at the end; ``feed`` takes its answer."""

    def __init__(self) -> None:
        self.query: bytes | None = _FIRST.encode()
        self._numbers: set[int] = set()

    @property
    def ids(self) -> list[str]:
        """In ascending order, with at least three digits, without the server itself."""
        return [f"{number:03}" for number in sorted(self._numbers) if number]

    def feed(self, payload: bytes) -> None:
        """One answer. Errors as ``WdbReply.data``."""
        reply = parse_reply(payload)
        page = reply.data()
        for item in items_of(page):
            number = item.get("id") if isinstance(item, dict) else item
            if not isinstance(number, int) or isinstance(number, bool):
                raise AnswerInvalid(1014, f"an agent without an id: {item!r:.60}")
            self._numbers.add(number)
        following = next_page(_FIRST, last_id_of(page)).encode() if reply.status == DUE else None
        if following is not None and following == self.query:
            raise AnswerInvalid(1014, "a page says that more follow, and ends where it began")
        self.query = following


def versions_call() -> HTTPCall[dict[str, str]]:
    """agent -> version. 5.0.0 and later."""
    call = db_all_agents()

    def decode(answer: Any) -> dict[str, str]:
        return {f"{int(row['id']):03}": str(row.get("version", "")) for row in call.decode(answer)}

    return HTTPCall("agents' versions", call.service, call.prepare, decode)
