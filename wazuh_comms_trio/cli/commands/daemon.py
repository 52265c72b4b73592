"""``wazuh-comms daemon NAME REQUEST``: ask one of the classic daemons from the shell.

Needs no configuration file, and nothing but the bare installation: it talks over the blocking socket. The request is
sent as it was typed, text or JSON; the answer's content is printed, over all its pages or streamed rows. Exit status 1
for an error, the daemon's own included.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from argparse import ArgumentTypeError, Namespace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from wazuh_comms_trio.cli.output import Output
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_FAILED
from wazuh_comms_trio.foundation.journal import printable

if TYPE_CHECKING:
    from wazuh_comms_trio.transport.daemon import Daemon

_PROGRAM: Final = "wazuh-comms"
_HOME: Final = "/var/ossec"
_TIMEOUT_S: Final = 10.0
_DESCRIPTION: Final = """
Ask one of a Wazuh server's daemons over its socket. REQUEST is text ("global get-agent-info 1") or JSON, sent as it is;
"-" reads it from standard input. An answer in pages or in streamed rows is printed whole.
"""


def add_parser(parent: Group) -> None:
    """Without the tool's ``--config``: the command reads none."""
    parser: argparse.ArgumentParser = parent.commands.add_parser(
        "daemon", help="ask a classic daemon over its socket", description=_DESCRIPTION
    )
    parser.add_argument(
        "--home", metavar="DIR", help=f"the Wazuh folder (default: {_HOME}, with --release where that is installed)"
    )
    parser.add_argument(
        "--release",
        metavar="VERSION",
        type=_release,
        help="the server's version, such as 5.0.0-beta3, or 'auto' to find it out (default: 4.x, in either place)",
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        default=_TIMEOUT_S,
        help="seconds for the whole answer (default: %(default)g)",
    )
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print the answer as one JSON document"
    )
    parser.add_argument("name", metavar="NAME", type=_daemon, help=f"one of {', '.join(_known())}")
    parser.add_argument("request", metavar="REQUEST", help="text or JSON; '-': standard input")
    parser.set_defaults(work=run)


def run(arguments: Namespace) -> int:
    """Runs the command. Prints the answer; returns the exit status."""
    from wazuh_comms_trio.errors import SocketTimeout, WazuhException

    output = Output(as_json=getattr(arguments, "json", False))
    try:
        request = read_request(arguments.request)
        answer = Asker(arguments.name, arguments.home, arguments.timeout, arguments.release).ask(request)
    except SocketTimeout:
        return _fail(f"{arguments.name} didn't answer within {arguments.timeout:g} s")
    except WazuhException as error:
        return _fail(str(error))
    output.document(answer, answer_text(answer))
    return 0


def read_request(word: str) -> str:
    """The request as typed, or from standard input, then without its last line's end. 1012 for an empty one."""
    from wazuh_comms_trio.errors import WazuhInternalError

    text = sys.stdin.read().removesuffix("\n") if word == "-" else word
    if not text.strip():
        raise WazuhInternalError(1012, "the request is empty")
    return text


def answer_text(answer: Any) -> str:
    """An answer for people: text as it is, everything else as indented JSON."""
    return answer if isinstance(answer, str) else json.dumps(answer, indent=2, ensure_ascii=False)


class Asker:
    """One request and all of its answer, over as many connections as it takes, within ``timeout`` seconds."""

    def __init__(self, name: str, home: str | None, timeout: float, release: str | None = None) -> None:
        from wazuh_comms_trio.errors import NotInRelease
        from wazuh_comms_trio.transport.switches import resolve

        self._deadline = monotonic() + timeout
        target = resolve(name, release, home)
        self._daemon: Daemon = target.daemon
        self._home = target.home
        self._release = target.release
        if self._daemon.kind != "stream":
            raise NotInRelease(1013, f"{name} doesn't speak in frames")

    def ask(self, request: str) -> Any:
        """The answer's content. Raises what the daemon answered as an error, and the connection's errors."""
        message = _as_object(request)
        if message is not None:
            return self._ask_object(message, request)
        if self._daemon.name == "wazuh-db":
            return self._ask_database(request)
        return self._ask_text(request)

    def _ask_database(self, request: str) -> Any:
        """An answer's data, all pages and rows of it."""
        from wazuh_comms_trio.transport.blocking.wazuh_db import WazuhDBClient
        from wazuh_comms_trio.wire.wdb_paging import rows_of

        with WazuhDBClient(home=self._home, release=self._release, timeout=self._left()) as database:
            replies = list(database.replies(request))
        if len(replies) > 1:
            return [row for reply in replies for row in rows_of(reply)]
        data = replies[0].data()
        return "ok" if data is None else data

    def _ask_text(self, request: str) -> Any:
        """An answer ``ok <data>`` or ``err <text>``; some are just text."""
        from wazuh_comms_trio.errors import AnswerInvalid
        from wazuh_comms_trio.wire.envelope import decode_text
        from wazuh_comms_trio.wire.wdb import parse_reply

        payload = self._exchange(request)
        try:
            reply = parse_reply(payload)
        except AnswerInvalid:
            return decode_text(payload)
        data = reply.only().data()
        return "ok" if data is None else data

    def _ask_object(self, message: dict[str, Any], request: str) -> Any:
        """An answer's ``data``, or its message where it has none; agents' pages are put together."""
        from wazuh_comms_trio.transport.schema import validate_request
        from wazuh_comms_trio.wire.envelope import decode_json, reply_data

        validate_request(self._daemon.name, message)
        reply = decode_json(self._exchange(request))
        data = reply_data(reply)
        page = data
        while reply.get("message") == "due" and (following := _next_object(message, page)) is not None:
            message = following
            reply = decode_json(self._exchange(json.dumps(message)))
            page = reply_data(reply)
            data["agents"] += page["agents"]
        return data if data is not None else reply.get("message", "ok")

    def _exchange(self, request: str) -> bytes:
        """Send a request over a connection of its own, return its answer's frame."""
        from wazuh_comms_trio.transport.blocking.socket import WazuhSocket
        from wazuh_comms_trio.wire.envelope import encode_text

        with WazuhSocket(self._daemon.places(self._home)[0], timeout=self._left()) as connection:
            connection.timeout = self._left()
            connection.send(encode_text(request))
            connection.timeout = self._left()
            return connection.receive()

    def _left(self) -> float:
        # Not 0, which would mean: don't wait at all, and so another error.
        return max(self._deadline - monotonic(), 0.001)


def _as_object(request: str) -> dict[str, Any] | None:
    """The request if it is a JSON object."""
    if not request.lstrip().startswith("{"):
        return None
    from wazuh_comms_trio.errors import WazuhInternalError

    try:
        message: dict[str, Any] = json.loads(request)
    except (ValueError, RecursionError) as error:
        raise WazuhInternalError(1012, f"the request begins like JSON and isn't: {error}") from None
    return message


def _next_object(message: dict[str, Any], page: Any) -> dict[str, Any] | None:
    """The request for the page behind this one, None where there is no way to ask."""
    parameters = message.get("parameters")
    try:
        last_id = page["agents"][-1]["id"]
    except (TypeError, LookupError):
        return None
    if not isinstance(parameters, dict) or parameters.get("agents") != "all" or parameters.get("last_id") == last_id:
        return None
    return message | {"parameters": parameters | {"last_id": last_id}}


def _fail(text: str) -> int:
    print("\n".join(f"{_PROGRAM}: {printable(line)}" for line in text.splitlines()), file=sys.stderr)
    return EXIT_FAILED


def _known() -> list[str]:
    from wazuh_comms_trio.transport.registry import daemons

    return sorted(daemons)


def _daemon(word: str) -> str:
    from wazuh_comms_trio.transport.daemon import ALIASES
    from wazuh_comms_trio.transport.releases.sockets import SOCKETS

    if word not in {*_known(), *ALIASES, *(one.name for one in SOCKETS)}:
        raise ArgumentTypeError(f"{word!r} isn't a daemon; known are {', '.join(_known())}")
    return word


def _release(word: str) -> str:
    from wazuh_comms_trio.transport.releases.release import release_of
    from wazuh_comms_trio.transport.switches import AUTO

    try:
        return word if word == AUTO else release_of(word).version
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ArgumentTypeError(f"{word!r} isn't a number of seconds above 0")
    return seconds
