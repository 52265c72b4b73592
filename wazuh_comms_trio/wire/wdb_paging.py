"""What ``due`` means after which wazuh-db query, and how the next page is asked for. Pure code.

*Paging*: the same query again, with the last id of the page before, until ``ok``. *Row streaming*: one query, many
``due`` frames. The answer doesn't tell which, only the query does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from wazuh_comms_trio.errors import AnswerInvalid, MessageInvalid, NotSynchronized
from wazuh_comms_trio.wire.envelope import encode_text
from wazuh_comms_trio.wire.framing import HEADER, MAX_SEND_BYTES, check_payload, encode_frame
from wazuh_comms_trio.wire.text_rules import check_word
from wazuh_comms_trio.wire.wdb import DUE, OK, WdbReply

#: Stands in a query where the last id belongs: ``global get-all-agents last_id {last_id}``.
PLACEHOLDER: Final = "{last_id}"

# What wazuh-db skips in front of a query.
_BLANKS: Final = " \n"
_NUMBER: Final = re.compile(r"[0-9]+\Z")

_LAST_ID: Final = re.compile(r"\blast_id (\d+)(?!\S)")
_JSON_LAST_ID: Final = re.compile(r'("last_id"\s*:\s*)\d+')
# Commands whose id stands first, right behind the command.
_ID_FIRST: Final = re.compile(r"(global (?:get-agents-by-connection-status|disconnect-agents) )(\d+)(?!\S)")
# Commands whose id stands behind everything else and may be left out by those who ask for the first page.
_ID_LAST: Final = re.compile(r"global (?:get-all-agents|get-group-agents \S+|sync-agent-info-get)\Z")
_ID_IN_JSON: Final = re.compile(r"global sync-agent-groups-get ?(\{.*\})?\Z", re.DOTALL)
_MAY_BE_DUE: Final = re.compile(r"agent \d+ (?:package|hotfix)|global (?:get-|sync-|disconnect-)")
# Begins with a word, and not with one of these.
_PLAIN: Final = re.compile(rf"(?!{_MAY_BE_DUE.pattern})\S")
_STREAMED: Final = re.compile(r"agent \d+ (?:package|hotfix) get\Z")


class Due(Enum):
    """What a ``due`` answer to a query means."""

    PAGES = "pages"
    ROWS = "rows"


def due_meaning(query: str) -> Due | None:
    """What ``due`` means as an answer to this query, None when nothing tells. wazuh-db skips blanks in front of it."""
    text = query.strip(_BLANKS)
    if "last_id" in text and (PLACEHOLDER in text or _LAST_ID.search(text)):
        return Due.PAGES
    if not _MAY_BE_DUE.match(text):  # the one look that most queries cost
        return None
    if _STREAMED.match(text):
        return Due.ROWS
    return Due.PAGES if any(form.match(text) for form in (_ID_FIRST, _ID_LAST, _ID_IN_JSON)) else None


def prepare(query: object) -> tuple[bytes, Due | None]:
    """The query's frame, and what a ``due`` answer to it means: ``encode_query``, ``encode_frame`` and
    ``due_meaning``, in one go for a query that has nothing special. Errors as theirs."""
    if type(query) is not str or "\0" in query or "last_id" in query or not _PLAIN.match(query):
        payload = encode_query(query)
        return encode_frame(payload), due_meaning(payload.decode())
    payload = encode_text(query)
    if len(payload) > MAX_SEND_BYTES:
        check_payload(payload)
    return HEADER.pack(len(payload)) + payload, None


def first_page(query: str) -> str:
    """The query for the first page: with the placeholder filled, or the id added where it was left out."""
    if PLACEHOLDER in query:
        return query.replace(PLACEHOLDER, "0")
    return f"{query} last_id 0" if _ID_LAST.match(query) else query


def next_page(query: str, last_id: int | str) -> str:
    """The query for the page behind ``last_id``. ``MessageInvalid`` (1012) when the query has no place for an id, or
    the id is not one word."""
    check_word(str(last_id))
    if PLACEHOLDER in query:
        return query.replace(PLACEHOLDER, str(last_id))
    if _ID_FIRST.match(query):
        return _ID_FIRST.sub(rf"\g<1>{last_id}", query)
    if match := _ID_IN_JSON.match(query):
        return _with_json_id(query, match[1], last_id)
    if _LAST_ID.search(query):
        return _LAST_ID.sub(f"last_id {last_id}", query, count=1)
    if _ID_LAST.match(query):
        return f"{query} last_id {last_id}"
    raise MessageInvalid(1012, f"no place for the last id in {query!r:.60}: write {PLACEHOLDER} where it belongs")


class Paging:
    """How far one is in the pages of a query. ``next_query`` is what to ask, None after the last page.

    ``MessageInvalid`` (1012) for a query without a place for the last id. ``last_id`` takes a page, returns the id to
    go on from.
    """

    def __init__(self, query: str, last_id: Callable[[Any], int | str]) -> None:
        if due_meaning(query) is not Due.PAGES:
            raise MessageInvalid(1012, f"no place for the last id in {query!r:.60}: write {PLACEHOLDER} there")
        self._query = query.strip(_BLANKS)
        self._last_id = last_id
        self.next_query: str | None = first_page(self._query)

    def take(self, reply: WdbReply) -> Any:
        """The page that answers ``next_query``, decoded. Errors as :meth:`WdbReply.data`, ``AnswerInvalid`` (1014) for
        one that doesn't lead on."""
        page = reply.data()
        following = next_page(self._query, self._last_id(page)) if reply.status == DUE else None
        if following is not None and following == self.next_query:
            raise AnswerInvalid(1014, f"a page says that more follow, and ends where it began: {following!r:.60}")
        self.next_query = following
        return page


def joined(pages: list[Any]) -> Any:
    """The answer as a whole: one page as it is, the items of several."""
    return pages[0] if len(pages) == 1 else [item for page in pages for item in items_of(page)]


def encode_query(query: object) -> bytes:
    """A query that wazuh-db reads as it was meant, but for its length. ``MessageInvalid`` (1012) for what isn't text,
    is empty, or has a NUL, where its reader stops."""
    if not isinstance(query, str):
        raise MessageInvalid(1012, f"a query is text, not {type(query).__name__}")
    if not query or query.isspace():
        raise MessageInvalid(1012, "the query is empty")
    if "\0" in query:
        raise MessageInvalid(1012, f"the query has a NUL at {query.index(chr(0))}, where its reader stops")
    return encode_text(query)


def check_query(query: str) -> str:
    """The query, checked as ``encode_query`` does, and its length."""
    check_payload(encode_query(query))
    return query


def single(reply: WdbReply, query: str) -> WdbReply:
    """The answer, unless it is the first of several: ``AnswerInvalid`` (1014) then."""
    if reply.status == DUE:
        raise AnswerInvalid(
            1014,
            f"the answer to {query!r:.60} is due, more follows: use rows(), or pages() with {PLACEHOLDER} in the query",
        )
    return reply


def _with_json_id(query: str, arguments: str | None, last_id: int | str) -> str:
    if not _NUMBER.match(str(last_id)):
        raise MessageInvalid(1012, f"the last id is a number in this query, not {last_id!r:.60}")
    if not arguments:
        return f'{query.rstrip()} {{"last_id":{last_id}}}'
    if _JSON_LAST_ID.search(arguments):
        return query.replace(arguments, _JSON_LAST_ID.sub(rf"\g<1>{last_id}", arguments))
    try:
        decoded = json.loads(arguments)
    except ValueError as error:
        raise MessageInvalid(1012, f"the query's arguments aren't JSON: {error}") from error
    return query.replace(arguments, json.dumps(decoded | {"last_id": last_id}, separators=(",", ":")))


def last_id_of(page: Any) -> int:
    """The id to go on from: of the page's last item, which is a number, a row with ``id``, or ``{"data": [rows]}``.

    ``AnswerInvalid`` (1014) for a page that has none.
    """
    item = page
    while True:
        match item:
            case bool():
                break
            case int():
                return item
            case str() if item.isascii() and item.isdigit():
                return int(item)
            case [*_, last]:
                item = last
            case {"id": found} | {"data": found}:
                item = found
            case _:
                break
    raise AnswerInvalid(1014, f"a page says that more follow but has no id to go on from: {page!r:.60}")


def rows_of(reply: WdbReply) -> list[Any]:
    """The rows in one frame of a streamed answer. Its last frame, ``ok {"status":"SUCCESS"}``, has none.

    ``NotSynchronized`` (1014) for ``NOT_SYNCED``, which an agent has instead of rows that never sent any;
    ``AnswerInvalid`` (1014) for another status; otherwise errors as :meth:`WdbReply.data`.
    """
    data = reply.data()
    if reply.status == OK and isinstance(data, dict) and data.keys() == {"status"}:
        status = data["status"]
        if status == "NOT_SYNCED":
            raise NotSynchronized(1014, "this agent was never synchronized: wazuh-db has no rows of it")
        if status != "SUCCESS":
            raise AnswerInvalid(1014, f"wazuh-db ended the rows with the status {status!r:.60}")
        return []
    return items_of(data)


def items_of(page: Any) -> list[Any]:
    """A page's items; what isn't a list is an item itself, nothing at all is none."""
    if page is None:
        return []
    return page if isinstance(page, list) else [page]
