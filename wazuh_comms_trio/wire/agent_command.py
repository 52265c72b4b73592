"""Commands to agents, as remoted's ``ar`` queue reads them::

    (msg_to_agent) [] <3 flags> <agent id or (null)> <message>

remoted drops or misreads a malformed datagram without a word, so all the checking is done here; every refusal is a
:class:`MessageInvalid` (1012) that says why. Flag 1 is ``A`` for all agents; flag 2 is ``!`` for what is no active
response and ``R`` for the event's agent; flag 3 is ``S`` for the one agent named; ``N`` stands for "not".
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Final, NamedTuple

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.wire.envelope import create_wazuh_socket_message
from wazuh_comms_trio.wire.text_rules import check_agent_id as check_agent_id

#: The longest datagram whose message is known to have reached an agent (DAEMONS.md, "The ar queue"). remoted reads
#: 65534 bytes, and drops what is longer than this on the way, with a line in its own log only.
MAX_COMMAND_BYTES: Final[int] = 65349
#: The longest datagram that execd reads whole.
MAX_EXECQ_BYTES: Final[int] = 65535

HC_SK_RESTART: Final[str] = "syscheck restart"
HC_FORCE_RECONNECT: Final[str] = "force_reconnect"
RESTART_AGENTS: Final[str] = "restart-ossec0"
RESTART_WAZUH: Final[str] = "restart-wazuh0"
RESTART_AGENTS_JSON: Final[str] = json.dumps(
    create_wazuh_socket_message({"module": "framework"}, RESTART_WAZUH, {"extra_args": [], "alert": {}})
)
AR_TYPE: Final[str] = "ar-message"

#: Stands where an agent's id would, in a message to all agents.
ALL_AGENTS: Final[str] = "(null)"
#: The server's own id.
SERVER_ID: Final[str] = "000"

# message -> confirmation for one agent, for all agents
_NOT_ACTIVE_RESPONSE: Final = {
    HC_SK_RESTART: ("Restarting Syscheck on agent", "Restarting Syscheck on all agents"),
    HC_FORCE_RECONNECT: ("Reconnecting agent", "Reconnecting all agents"),
}
_RESTARTS: Final = (RESTART_AGENTS, RESTART_WAZUH, RESTART_AGENTS_JSON)
_RESTART_TAIL: Final = " - null (from_the_server) (no_rule_id)"

_FLAGS: Final = re.compile(r"[AN][!RN][SN]\Z")


class AgentCommand(NamedTuple):
    """A checked datagram, and what to tell the person who asked for it."""

    datagram: bytes
    confirmation: str


def check_message(msg: object) -> str:
    """A command's text: not empty, one line, no NUL (where the reader stops)."""
    if not isinstance(msg, str):
        raise MessageInvalid(1012, f"a message is text, not {type(msg).__name__}")
    if "\0" in msg or "\n" in msg or "\r" in msg:
        where = min(msg.index(char) for char in "\0\n\r" if char in msg)
        raise MessageInvalid(1012, f"the message has {msg[where]!r} at {where}; it must be one line without NULs")
    if not msg or msg.isspace():
        raise MessageInvalid(1012, "the message is empty")
    return msg


def check_command(msg: str) -> None:
    """What an active response is to run is looked for in one folder of the agent's: 1012 for a path. ``msg`` is a
    version 1 message in JSON or begins with the command's name."""
    names: list[object]
    if msg.startswith("{"):
        try:
            names = [value for name, value in json.loads(msg, object_pairs_hook=list) if name.casefold() == "command"]
        except (ValueError, RecursionError):
            return  # not read as JSON by an agent either
    else:
        names = [msg.split(" ", 1)[0]]
    for name in names:
        if isinstance(name, str) and ("/" in name or "\\" in name):
            raise MessageInvalid(1012, f"{name!r:.60} is a path; a command is a name in the agent's folder of them")


def create_wazuh_queue_socket_msg(flag: str, str_agent_id: str, msg: str, is_restart: bool = False) -> str:
    """The datagram's text. ``str_agent_id`` is an agent's id, or ``(null)`` with a flag for all agents.

    Raises 1012 for flags, ids and messages that remoted would drop, misread or give to others than those named.
    """
    if not isinstance(flag, str) or not _FLAGS.match(flag):
        raise MessageInvalid(1012, f"{flag!r:.60} are no flags: three letters, [AN][!RN][SN]")
    to_all, to_one = flag[0] == "A", flag[2] == "S"
    if to_all:
        if to_one or str_agent_id != ALL_AGENTS:
            raise MessageInvalid(1012, f"the flags {flag} are for all agents, so the id must be {ALL_AGENTS}")
    elif str_agent_id == ALL_AGENTS:
        raise MessageInvalid(1012, f"the flags {flag} are for one agent, so its id is needed")
    else:
        check_agent_id(str_agent_id)
    check_message(msg)
    return f"(msg_to_agent) [] {flag} {str_agent_id} {msg}{_RESTART_TAIL if is_restart else ''}"


def encode_datagram(text: str, limit: int) -> bytes:
    """``text`` in UTF-8, 1012 when it is longer than ``limit`` bytes."""
    try:
        datagram = text.encode()
    except UnicodeEncodeError as exc:
        raise MessageInvalid(1012, f"the message can't be written in UTF-8: {exc}") from exc
    if len(datagram) > limit:
        raise MessageInvalid(1012, f"{len(datagram)} bytes, at most {limit} are read")
    return datagram


# Mostly the same message goes to many agents. A message has at most 64 kB, so this holds a few MB at most.
@lru_cache(maxsize=16)
def _prepare(msg: str, msg_type: str | None) -> tuple[bytes, bytes, bytes, bytes | None, str, str]:
    """What is the same for every agent that a command goes to: what stands before an agent's id and after it, the
    datagram to all agents, the bare form for the server itself if there is one, and the confirmations for one agent
    and for all. A plain tuple, since it is taken apart for every datagram."""
    if msg_type is not None and msg_type != "" and msg_type != AR_TYPE:
        raise _unknown_type(msg_type)
    check_message(msg)
    bare = None
    if msg_type == AR_TYPE:
        check_command(msg)
        confirmations, tail = ("Command sent.", "Command sent."), ""
        bare = encode_datagram(msg, MAX_EXECQ_BYTES)
    elif msg in _RESTARTS:
        confirmations, tail = ("Restarting agent", "Restarting all agents"), _RESTART_TAIL
    elif msg in _NOT_ACTIVE_RESPONSE:
        confirmations, tail = _NOT_ACTIVE_RESPONSE[msg], ""
    else:
        raise MessageInvalid(1012, f"unknown command {msg!r:.60}; an active response needs the type {AR_TYPE!r}")
    to_one, to_all = ("N!S", "A!N") if msg in _NOT_ACTIVE_RESPONSE else ("NNS", "ANN")
    after_id = encode_datagram(f" {msg}{tail}", MAX_EXECQ_BYTES + 1)
    whole = b"(msg_to_agent) [] %b %b%b" % (to_all.encode(), ALL_AGENTS.encode(), after_id)
    return f"(msg_to_agent) [] {to_one} ".encode(), after_id, whole, bare, *confirmations


def _unknown_type(msg_type: object) -> MessageInvalid:
    return MessageInvalid(1012, f"unknown type of message: {msg_type!r:.60}")


def encode_agent_command(msg: str = "", agent_id: str | None = "", msg_type: str | None = "") -> AgentCommand:
    """The datagram for ``WazuhQueue.send_msg_to_agent``. No ``agent_id`` means all agents.

    With the type ``ar-message`` any one-line message is taken whose command is no path, and one to agent ``000``, the
    server itself, is written bare, as execd reads it. Without a type only restarts, ``syscheck restart`` and
    ``force_reconnect`` are. 1012 for everything else.
    """
    return AgentCommand(*agent_datagram(msg, agent_id, msg_type))


def agent_datagram(
    msg: str, agent_id: str | None, msg_type: str | None, limit: int = MAX_EXECQ_BYTES
) -> tuple[bytes, str]:
    """As :func:`encode_agent_command`: datagram and confirmation. ``limit``: a program's own, in bytes."""
    try:
        before_id, after_id, to_all, bare, confirmation, confirmation_all = _prepare(msg, msg_type)
    except TypeError:  # what can't be hashed is no text
        check_message(msg)
        raise _unknown_type(msg_type) from None
    if agent_id is None or agent_id == "":
        datagram, confirmation = to_all, confirmation_all
    else:
        check_agent_id(agent_id)
        if bare is not None and agent_id == SERVER_ID:
            if len(bare) > limit:
                raise MessageInvalid(1012, f"{len(bare)} bytes, at most {limit} are taken")
            return bare, confirmation
        datagram = before_id + agent_id.encode() + after_id
    if (size := len(datagram)) > MAX_COMMAND_BYTES:
        raise MessageInvalid(1012, f"{size} bytes, at most {MAX_COMMAND_BYTES} reach an agent")
    if size > limit:
        raise MessageInvalid(1012, f"{size} bytes, at most {limit} are taken")
    return datagram, confirmation
