"""A request to one of the server's HTTP sockets, and what becomes of its answer: pure, for either client.

A typed function returns an :class:`HTTPCall`; ``HTTPClient.call`` and ``HTTPPool.call`` carry it out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.transport.http.errors import HTTPAnswerInvalid, numbers_of, status_error
from wazuh_comms_trio.transport.releases.release import Release
from wazuh_comms_trio.wire.envelope import encode_json
from wazuh_comms_trio.wire.text_rules import check_agent_id

T_co = TypeVar("T_co", covariant=True)

#: The most bytes of an answer that are taken, unless told otherwise.
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
AGENT_HEADER: Final = "X-Wazuh-Agent-Id"


class HTTPRequest(NamedTuple):
    """A request, without ``Host`` and ``Content-Length``."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


class HTTPAnswer(NamedTuple):
    """One whole answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class HTTPCall(Generic[T_co]):
    """One typed request. ``service`` is the registry's name of the socket; ``prepare`` makes the request for a release,
    or raises :class:`NotInRelease`; ``decode`` takes a successful answer's JSON (its bytes when ``as_bytes``).

    ``repeatable``: it may be sent a second time when a kept connection turned out to be closed. What changes something
    while it is answered isn't, and gets a connection of its own.
    """

    name: str
    service: str
    prepare: Callable[[Release], HTTPRequest]
    decode: Callable[[Any], T_co]
    repeatable: bool = True
    as_bytes: bool = False

    def __repr__(self) -> str:
        return f"<HTTPCall {self.name} to {self.service}>"

    def result(self, answer: HTTPAnswer) -> T_co:
        """The result that the answer means. :class:`HTTPStatusError` for one of 400 and above,
        :class:`HTTPAnswerInvalid` for one of another form."""
        if not 200 <= answer.status < 300:
            raise status_error(self.service, answer.status, answer.headers, answer.body)
        if self.as_bytes:
            return self.decode(answer.body)
        try:
            return self.decode(json.loads(answer.body))
        except HTTPAnswerInvalid:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            raise self.invalid(f"{exc!r}; it begins with {answer.body[:60]!r}") from exc

    def invalid(self, why: str) -> HTTPAnswerInvalid:
        """The error for an answer of another form."""
        return HTTPAnswerInvalid(numbers_of(self.service).not_json, f"{self.name}: the answer isn't its form: {why}")


def get(target: str, *headers: tuple[str, str]) -> HTTPRequest:
    """A request without a body."""
    return HTTPRequest("GET", target, headers)


def post(target: str, message: Any = None, *headers: tuple[str, str]) -> HTTPRequest:
    """``message`` as JSON; None is an empty body, which isn't the same as ``[]``. 1012 for what JSON can't say."""
    if message is None:
        return HTTPRequest("POST", target, headers, b"")
    return HTTPRequest("POST", target, (("Content-Type", "application/json"), *headers), encode_json(message))


def agent_number(agent_id: object) -> int:
    """An agent's id as a number. 1012 for what is no id; a number is taken as it is."""
    if isinstance(agent_id, int) and not isinstance(agent_id, bool) and agent_id >= 0:
        return agent_id
    return int(check_agent_id(agent_id))


def agent_header(agent_id: object) -> tuple[str, str]:
    """The header that names the agent, which 5.0 wants instead of a part of the path."""
    return AGENT_HEADER, f"{agent_number(agent_id):03}"


def numbers(agent_ids: object) -> list[int]:
    """Agents' ids as numbers. 1012 for one text where a list is meant, and for what is no id."""
    if isinstance(agent_ids, str | bytes):
        raise MessageInvalid(1012, "agents' ids are a sequence, not one text")
    return [agent_number(one) for one in agent_ids]  # type: ignore[attr-defined]


# --- forms of answers ---


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise TypeError(f"no object but {type(value).__name__}")
    return value


def as_objects(value: Any) -> list[dict[str, Any]]:
    """A list of objects."""
    return [as_object(one) for one in _as_list(value)]


def as_numbers(value: Any) -> list[int]:
    """A list of numbers."""
    found = _as_list(value)
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in found):
        raise TypeError("not all of them are numbers")
    return found


def as_names(value: Any) -> list[str]:
    """A list of texts."""
    found = _as_list(value)
    if not all(isinstance(one, str) for one in found):
        raise TypeError("not all of them are texts")
    return found


def nothing(_: Any) -> None:
    """Whatever a success says."""


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"no list but {type(value).__name__}")
    return value
