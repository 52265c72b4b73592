"""Which agents ``wazuh-comms agents list`` shows, and in which order. Pure."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from wazuh_comms_trio.cli import arguments as types

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.agent_orders import AgentOrder
    from wazuh_comms_trio.backends.interfaces import Agent
    from wazuh_comms_trio.backends.presence import LastSeen, Status

_PAGE: Final = 500
#: Digits of a number in a version; agents say what theirs is, and Python reads no numbers of thousands of digits.
_LONGEST_NUMBER: Final = 18
_STATUSES: Final = ("active", "disconnected", "never")


class Listed(NamedTuple):
    """An agent, and when it was there last (``moment``, epoch seconds): by its log-in and by what was heard of it."""

    agent: Agent
    moment: float | None
    status: Status
    node: str = ""


#: What to sort by, which no store does; equal ones follow by name and uuid. Who never logged in comes before all who
#: did.
_SORT_KEYS: Final[Mapping[str, Callable[[Listed], Any]]] = {
    "status": lambda one: one.status,
    "version": lambda one: _version_key(one.agent.version),
    "last-login": lambda one: one.agent.last_login or 0.0,
    "last-seen": lambda one: one.moment or 0.0,
}


def add_filters(parser: ArgumentParser) -> None:
    """The options of ``agents list``; all that are given must hold."""
    parser.add_argument("--group", metavar="G", type=types.group, help="in this group")
    parser.add_argument("--status", choices=_STATUSES, metavar="S", help=", ".join(_STATUSES))
    parser.add_argument(
        "--silent-for",
        metavar="TIME",
        type=types.duration,
        help="nothing heard of it for so long (90s, 15m, 1h, 7d), or ever",
    )
    parser.add_argument("--version", metavar="V", type=types.text, help="of the agent; may be a pattern: '6.0.*'")
    parser.add_argument("--name", metavar="PATTERN", type=types.text, help="as 'web-*'; capitals count")
    orders = ("name", "uuid", *_SORT_KEYS)
    parser.add_argument("--sort", choices=orders, metavar="BY", default="name", help=", ".join(orders))
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    parser.add_argument("--limit", metavar="N", type=types.count, help="at most so many (default: all)")


def with_status(agent: Agent, seen: LastSeen | None, now: float, after: float) -> Listed:
    """``seen``: None where nothing is known but its log-ins; ``after``: seconds of silence that are too many."""
    from wazuh_comms_trio.backends.presence import last_moment, status_of

    moment, status = last_moment(agent.last_login, seen, now), status_of(agent.last_login, seen, now, after)
    return Listed(agent, moment, status, "" if seen is None else seen.node)


def stored_order(arguments: Namespace) -> tuple[AgentOrder, bool]:
    """In which order the store gives them, and whether in reverse: the one that is wanted, or by name."""
    if arguments.sort in _SORT_KEYS:
        return "name", False
    return cast("AgentOrder", arguments.sort), arguments.reverse


async def chosen(
    pages: AsyncIterable[Sequence[Listed]], arguments: Namespace, now: float
) -> AsyncGenerator[Sequence[Listed], None]:
    """The listed agents of ``pages`` in their ``stored_order``; ``now``: epoch seconds. In another order only when all
    are read."""
    left = inf if arguments.limit is None else arguments.limit
    by = _SORT_KEYS.get(arguments.sort)
    every: list[Listed] = []
    async for page in pages:
        found = [one for one in page if _matches(one, arguments, now)]
        if by is not None:
            every += found
            continue
        if found:
            yield found[: int(min(left, len(found)))]
            left -= len(found)
        if left <= 0:
            return
    if by is not None:
        every.sort(key=by, reverse=arguments.reverse)
        del every[int(min(left, len(every))) :]
        for start in range(0, len(every), _PAGE):
            yield every[start : start + _PAGE]


def _matches(one: Listed, wanted: Namespace, now: float) -> bool:
    agent = one.agent
    silent_since = None if wanted.silent_for is None else now - wanted.silent_for
    return (
        (wanted.group in (None, "all") or wanted.group in agent.groups)
        and wanted.status in (None, one.status)
        and (silent_since is None or one.moment is None or one.moment <= silent_since)
        and (wanted.version is None or fnmatchcase(agent.version or "", wanted.version))
        and (wanted.name is None or fnmatchcase(agent.name, wanted.name))
    )


def _version_key(version: str | None) -> list[tuple[int, int, str]]:
    """A key to sort versions by: ``v6.0.10`` follows ``v6.0.9``."""
    key: list[tuple[int, int, str]] = []
    for part in (version or "").lstrip("vV").replace("-", ".").split("."):
        is_number = part.isascii() and part.isdigit() and len(part) <= _LONGEST_NUMBER
        key.append((1, int(part), "") if is_number else (0, 0, part))
    return key
