"""Which agents ``wazuh-comms agents list`` shows, and in which order. Pure."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from wazuh_comms_trio.cli import arguments as types

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.interfaces import Agent

#: What to sort by; equal ones follow by name and uuid. Who never logged in comes before all who did.
_SORT_KEYS: Final[Mapping[str, Callable[[Agent], Any]]] = {
    "name": lambda agent: agent.name,
    "uuid": lambda agent: agent.id,
    "status": lambda agent: agent.status,
    "version": lambda agent: _version_key(agent.version),
    "last-login": lambda agent: agent.last_login or 0.0,
}


def add_filters(parser: ArgumentParser) -> None:
    """The options of ``agents list``; all that are given must hold."""
    parser.add_argument("--group", metavar="G", type=types.group, help="in this group")
    parser.add_argument("--status", choices=("active", "disconnected"), metavar="S", help="active or disconnected")
    parser.add_argument(
        "--silent-for",
        metavar="TIME",
        type=types.duration,
        help="silent for so long (90s, 15m, 1h, 7d), or always",
    )
    parser.add_argument("--version", metavar="V", type=types.text, help="of the agent; may be a pattern: '6.0.*'")
    parser.add_argument("--name", metavar="PATTERN", type=types.text, help="as 'web-*'; capitals count")
    parser.add_argument("--sort", choices=tuple(_SORT_KEYS), metavar="BY", default="name", help=", ".join(_SORT_KEYS))
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    parser.add_argument("--limit", metavar="N", type=types.count, help="at most so many (default: all)")


def chosen(agents: Iterable[Agent], arguments: Namespace, now: float) -> list[Agent]:
    """``now``: epoch seconds."""
    found = [agent for agent in agents if _matches(agent, arguments, now)]
    found.sort(key=lambda agent: (agent.name, agent.id))
    found.sort(key=_SORT_KEYS[arguments.sort], reverse=arguments.reverse)
    return found[: arguments.limit]


def _matches(agent: Agent, wanted: Namespace, now: float) -> bool:
    silent_since = None if wanted.silent_for is None else now - wanted.silent_for
    return (
        (wanted.group in (None, "all") or wanted.group in agent.groups)
        and wanted.status in (None, agent.status)
        and (silent_since is None or agent.last_login is None or agent.last_login <= silent_since)
        and (wanted.version is None or fnmatchcase(agent.version or "", wanted.version))
        and (wanted.name is None or fnmatchcase(agent.name, wanted.name))
    )


def _version_key(version: str | None) -> list[tuple[int, int, str]]:
    """``v6.0.10`` follows ``v6.0.9``."""
    key: list[tuple[int, int, str]] = []
    for part in (version or "").lstrip("vV").replace("-", ".").split("."):
        key.append((1, int(part), "") if part.isascii() and part.isdigit() else (0, 0, part))
    return key
