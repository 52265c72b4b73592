"""``wazuh-comms events tail``: what the embedded engine and index hold."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from wazuh_comms_trio.cli import arguments as types
from wazuh_comms_trio.cli.parser import Group
from wazuh_comms_trio.cli.program import EXIT_FAILED, complain, config_path
from wazuh_comms_trio.foundation.journal import printable

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.embedded.ndjson.damage import Damage
    from wazuh_comms_trio.backends.embedded.reader import TailedEvent

_LONGEST_DATA: Final = 400
#: Between JSON's tokens; in its strings they are escaped.
_BLANKS: Final = bytes.maketrans(b"\t\r", b"  ")


def add_parser(parent: Group) -> None:
    events = parent.group("events", help="the events that the embedded backends hold")
    tail = events.command(
        "tail",
        _tail,
        help="print them, the oldest first: stateless events and documents",
        description="Prints what the embedded engine and index hold, the oldest first. With --json each is one JSON "
        "document on one line, whole; else long data is cut.",
    )
    tail.add_argument("--follow", "-f", action="store_true", help="go on with what comes, until Ctrl-C")
    tail.add_argument("-n", dest="last", metavar="N", type=types.count, help="the last so many (default: all)")
    tail.add_argument("--agent", metavar="UUID|NAME", type=types.agent_reference, help="of this agent")
    tail.add_argument(
        "--since", metavar="TIME", type=types.moment, help="from this time on: 15m, 1h, 7d ago, or 2025-03-11T19:12:36Z"
    )
    tail.add_argument("--module", metavar="M", type=types.text, help="of this module: logcollector, fim, inventory ...")


async def _tail(arguments: Namespace) -> int:
    from wazuh_comms_trio.backends.embedded.reader import tail_events
    from wazuh_comms_trio.cli.agents.names import agent_option
    from wazuh_comms_trio.cli.output import Output
    from wazuh_comms_trio.cli.owner import acting_as_owner
    from wazuh_comms_trio.cli.stores import embedded_folder, read_config

    folder = embedded_folder(read_config(arguments))
    agent_id = await agent_option(arguments)

    filtered = arguments.since is not None or arguments.module is not None or agent_id is not None

    def wanted(event: TailedEvent) -> bool:
        return (
            (arguments.since is None or event.received >= arguments.since)
            and (arguments.module is None or _module_of(event) == arguments.module)
            and (agent_id is None or _agent_of(event) == agent_id)
        )

    out = sys.stdout.buffer
    status = shown = 0

    def tell(damage: Damage) -> None:
        nonlocal status
        status = EXIT_FAILED
        out.flush()
        complain("wazuh-comms", f"{folder / 'events'}/{damage}; see `wazuh-comms store verify`")

    with acting_as_owner(folder, Path(config_path(arguments.config)), make=False):
        async for event in tail_events(
            folder, follow=arguments.follow, wanted=wanted, last=arguments.last, on_damage=tell
        ):
            line = _shown(event.encode()) if arguments.json else event_text(event).encode("utf-8", "backslashreplace")
            out.write(line + b"\n")
            shown += 1
            if arguments.follow:
                out.flush()
    out.flush()
    if filtered and not shown:
        Output(as_json=arguments.json).note("no event matches")
    return status


def event_text(event: TailedEvent) -> str:
    """One event on one line for people: when, what, whose, and the data, cut."""
    from wazuh_comms_trio.cli.output import timestamp

    header = _object(event.header)
    if event.kind == "stateless":
        what = "/".join(filter(None, (_word(header.get("module")), _word(header.get("collector"))))) or "-"
        whose = event.agent_id or "-"
    else:
        what, whose = event.index or "-", f"{event.document_id} v{event.version}"
    data = (event.data or b"").decode("utf-8", "backslashreplace").strip()
    cut = data if len(data) <= _LONGEST_DATA else data[:_LONGEST_DATA] + " ..."
    return printable(f"{timestamp(event.received)}  {event.kind}  {what}  {whose}  {cut}".rstrip())


def _module_of(event: TailedEvent) -> str | None:
    """The module, as the event's header line says it; of a document, whose index it is in."""
    from wazuh_comms_trio.backends.state_modules import STATE_MODULES

    if event.kind == "stateless":
        return _word(_object(event.header).get("module"))
    return next((module.module for module in STATE_MODULES if module.index == event.index), None)


def _shown(line: bytes) -> bytes:
    """JSON with the same values, and nothing in it that a terminal acts on: an agent's own texts are in it as it wrote
    them."""
    text = line.translate(_BLANKS).decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text.encode()
    return "".join(char if char.isprintable() else _escaped(char) for char in text).encode()


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else json.dumps(char)[1:-1]


def _agent_of(event: TailedEvent) -> str:
    """The agent of a document: the document says itself whose it is, or its id does."""
    if event.agent_id is not None:
        return event.agent_id.lower()
    agent = _object(event.data).get("agent")
    named = _word(agent.get("id")) if isinstance(agent, dict) else ""
    return (named or (event.document_id or "").partition("_")[0]).lower()


def _object(line: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(line or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""
