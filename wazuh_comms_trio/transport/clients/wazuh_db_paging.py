"""What ``due`` means after which wazuh-db query, and how the next page is asked for. Pure code.

*Paging*: the same query again, with the last id of the page before, until ``ok``. *Row streaming*: one query, many
``due`` frames. The answer doesn't tell which, only the query does.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any, Final

from wazuh_comms_trio.errors import AnswerInvalid, MessageInvalid
from wazuh_comms_trio.wire.text_rules import check_word

#: Stands in a query where the last id belongs: ``global get-all-agents last_id {last_id}``.
PLACEHOLDER: Final = "{last_id}"

_NUMBER: Final = re.compile(r"[0-9]+\Z")

_LAST_ID: Final = re.compile(r"\blast_id (\d+)(?!\S)")
_JSON_LAST_ID: Final = re.compile(r'("last_id"\s*:\s*)\d+')
# Commands whose id stands first, right behind the command.
_ID_FIRST: Final = re.compile(r"(global (?:get-agents-by-connection-status|disconnect-agents) )(\d+)(?!\S)")
# Commands whose id stands behind everything else and may be left out by those who ask for the first page.
_ID_LAST: Final = re.compile(r"global (?:get-all-agents|get-group-agents \S+|sync-agent-info-get)\Z")
_ID_IN_JSON: Final = re.compile(r"global sync-agent-groups-get ?(\{.*\})?\Z", re.DOTALL)
_STREAMED: Final = re.compile(r"agent \d+ (?:package|hotfix) get\Z")


class Due(Enum):
    """What a ``due`` answer to a query means."""

    PAGES = "pages"
    ROWS = "rows"


def due_meaning(query: str) -> Due | None:
    """What ``due`` means as an answer to this query, None when nothing tells. wazuh-db skips blanks in front of it."""
    text = query.strip(" \n")
    if _STREAMED.match(text):
        return Due.ROWS
    forms = (_LAST_ID.search, _ID_FIRST.match, _ID_LAST.match, _ID_IN_JSON.match)
    return Due.PAGES if PLACEHOLDER in text or any(form(text) for form in forms) else None


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


def items_of(page: Any) -> list[Any]:
    """A page's items; what isn't a list is an item itself, nothing at all is none."""
    if page is None:
        return []
    return page if isinstance(page, list) else [page]
