"""Detects the release that runs here: by the home, by the sockets that are there, by one harmless question. Never by
writing.

The order counts: a home says 4 or 5; sockets may raise the group and never lower it, since they vanish while a daemon
restarts and stale ones stay; then a question is asked that changes nothing wherever it arrives.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from wazuh_comms_trio.transport.releases.release import GROUPS, HOME_4, HOME_5, HOME_VARIABLE, Release, release_of

_SOCKETS: Final = "queue/sockets"
_TASKS: Final = "queue/tasks/task"
_WDB_HTTP: Final = f"{_SOCKETS}/wdb-http.sock"
_ORDER: Final = tuple(GROUPS)
#: A question that no release of the task-manager acts upon: 5.0 answers with a word, the others with a number.
_QUESTION: Final = b'{"action":"?"}'
_LARGEST_ANSWER: Final = 65536

#: home -> the highest group that was ever seen there.
_known: dict[str, str] = {}


def default_home() -> str:
    """The home of the server on this machine: ``WAZUH_MANAGER_HOME``, else the folder of 5.0 where there is one, else
    that of 4.x."""
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return named
    return HOME_5 if os.path.isdir(HOME_5) else HOME_4


def detect_release(
    home: str | os.PathLike[str] | None = None, *, probe: bool = True, timeout: float = 1.0, remember: bool = True
) -> Release:
    """The release that runs under ``home`` (None: where a server is installed). Blocks for at most two ``timeout``
    seconds.

    The home decides between 4 and 5; sockets that are there raise the group; then, with ``probe``, what is still open
    is asked: ``GET /v1/agents/ids`` of wazuh-db's HTTP socket, or ``{"action":"?"}`` of the task-manager, which change
    nothing. What was found for a home is remembered and never lowered in this process, unless ``remember`` is false.

    4.13 to 4.14.1 and later 4.14 can't be told apart from outside, nor 4.7 to 4.12 from one another: the earlier group
    is named then, whose sockets are the same. Only an explicit version is certain.
    """
    place = os.path.abspath(os.fspath(default_home() if home is None else home))
    group = _by_home(place)
    group = _highest(group, _by_sockets(place))
    if remember and place in _known:
        group = _highest(group, _known[place])
    if probe and group != "G":
        group = _highest(group, _by_probe(place, timeout))
    if remember:
        _known[place] = group
    return release_of(group)


def _highest(*groups: str | None) -> str:
    return max((group for group in groups if group is not None), key=_ORDER.index)


def _by_home(home: str) -> str:
    named = os.environ.get(HOME_VARIABLE)
    of_5 = os.path.basename(home) == os.path.basename(HOME_5) or (named and os.path.abspath(named) == home)
    return "E" if of_5 else "A"


def _by_sockets(home: str) -> str | None:
    def there(path: str) -> bool:
        return os.path.exists(os.path.join(home, path))

    def one_of(*names: str) -> bool:
        return any(there(f"{_SOCKETS}/{name}") for name in names)

    signs: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("G", lambda: one_of("vd.sock", "inventory-sync.sock", "inventory-sync-http.sock")),
        ("G", lambda: one_of("remoted-module.sock", "remote-admin-http.sock")),
        ("F", lambda: one_of("modulesd", "ar")),
        ("E", lambda: one_of("keystore")),
        ("alpha", lambda: one_of("queue-http.sock")),
        ("C", lambda: there(_WDB_HTTP)),
    )
    return next((group for group, seen in signs if seen()), None)


def _by_probe(home: str, timeout: float) -> str | None:
    """What a question tells; None when nobody answers, or in another way than is known."""
    status = _ask_wdb_http(os.path.join(home, _WDB_HTTP), timeout)
    if status == 404:
        return "G"
    if status == 200:
        return "C"
    answer = _ask_tasks(os.path.join(home, _TASKS), timeout)
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, str):
        return "G"
    return "A" if isinstance(error, int) else None


def _ask_wdb_http(path: str, timeout: float) -> int | None:
    """The status of an answer to ``GET /v1/agents/ids``, which every release that has the route answers alike."""
    request = b"GET /v1/agents/ids HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head = _exchange(path, request, timeout, lambda data: b"\r\n" in data)
    words = head.split(b"\r\n", 1)[0].split(b" ")
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1].isdigit() else None


def _ask_tasks(path: str, timeout: float) -> object:
    def whole(data: bytes) -> bool:
        return len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "little")

    answer = _exchange(path, struct.pack("<I", len(_QUESTION)) + _QUESTION, timeout, whole)
    try:
        found: object = json.loads(answer[4:].rstrip(b"\0"))
    except (ValueError, RecursionError):
        return None
    return found


def _exchange(path: str, request: bytes, timeout: float, whole: Callable[[bytes], bool]) -> bytes:
    """What comes in answer, ``b""`` when nothing does."""
    data = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(path)
            sock.sendall(request)
            while not whole(data) and len(data) < _LARGEST_ANSWER:
                if not (more := sock.recv(4096)):
                    break
                data += more
    except OSError:
        return b""
    return data
