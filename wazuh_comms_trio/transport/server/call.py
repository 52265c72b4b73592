"""A request to one of the server's daemons, and what becomes of its answer: pure, for either kind of program."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from wazuh_comms_trio.errors import AnswerInvalid, MessageInvalid, WazuhError
from wazuh_comms_trio.transport.releases.release import Release
from wazuh_comms_trio.wire.envelope import decode_json, decode_text, reply_data
from wazuh_comms_trio.wire.text_rules import check_agent_id, check_line, check_list

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class DaemonCall(Generic[T_co]):
    """One typed request. ``daemon`` is the registry's name; ``prepare`` makes the payload for a release, or raises
    :class:`NotInRelease`; ``decode`` takes the answer's payload.

    ``repeatable``: sent a second time it changes nothing more, so it is, where the connection was lost before the
    answer came. Everything else is sent a second time only where nothing of it had gone out.
    """

    name: str
    daemon: str
    prepare: Callable[[Release], bytes]
    decode: Callable[[bytes], T_co]
    repeatable: bool = False

    def __repr__(self) -> str:
        return f"<DaemonCall {self.name} to {self.daemon}>"


def data_of(payload: bytes) -> Any:
    """The ``data`` of a JSON answer, or the whole of one that has a ``status``. Errors as ``reply_data``."""
    return reply_data(decode_json(payload))


def text_of(payload: bytes) -> str:
    """What stands behind ``ok``. ``WazuhError`` 1014 with the daemon's own text for ``err``, :class:`AnswerInvalid` for
    anything else."""
    text = decode_text(payload).strip()
    word, _, rest = text.partition(" ")
    if word == "ok":
        return rest
    if word.lower() == "err":
        raise WazuhError(1014, rest or "the daemon gave no reason", cmd_error=True)
    raise AnswerInvalid(1014, f"the daemon answered neither ok nor err: {text[:60]!r}")


def check_words(value: object, what: str) -> str:
    """Text of one line that isn't empty. 1012 otherwise."""
    if not check_line(value, what):
        raise MessageInvalid(1012, f"{what} is empty")
    return str(value)


def agent_ids(agents: str | Iterable[str]) -> list[str]:
    """Ids of agents in order, checked; one id stands for itself. 1012 for what is no id, and for nobody at all."""
    ids = [check_agent_id(one) for one in ([agents] if isinstance(agents, str) else check_list(agents, "agents"))]
    if not ids:
        raise MessageInvalid(1012, "no agent was named; every agent is 'all'")
    return ids
