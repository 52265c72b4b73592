"""Every operation of the agents' API and of the enrolment, with the errors that it may be answered with.

What is refused is named by its class, so that statuses, numbers and texts come from the table of errors. Tests compare
the paths with the routes that the applications have, and run the document made from it against a live server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from attrs import evolve, frozen

from wazuh_comms_trio import errors
from wazuh_comms_trio.api.agent_api.authentication import Credentials
from wazuh_comms_trio.api.agent_api.base import PREFIX
from wazuh_comms_trio.errors import CommsError
from wazuh_comms_trio.http.server.refusals import (
    CodingUnsupported,
    HeadTooLarge,
    MethodNotAllowed,
    RouteUnknown,
    ServerError,
)
from wazuh_comms_trio.services.authentication.login_throttle import TooManyAttempts
from wazuh_comms_trio.services.commands.command_json import PostedCommands
from wazuh_comms_trio.services.enrollment import EnrolledAgent, Unauthorized
from wazuh_comms_trio.services.vulnerability import ScanRequest, ScanSystem

__all__ = ["EVERYWHERE", "OPERATIONS", "Body", "Operation"]

Schema = Mapping[str, Any] | type

#: Of any request, whatever its path.
EVERYWHERE: Final[tuple[type[CommsError], ...]] = (
    errors.MalformedRequest,
    errors.ClientDisconnected,
    errors.BodyTooLarge,
    HeadTooLarge,
    ServerError,
    errors.BackendUnavailable,
    errors.Overloaded,
    RouteUnknown,
    MethodNotAllowed,
)
_TOKEN: Final = (errors.TokenInvalid, errors.TokenExpired)
_BODY: Final = (CodingUnsupported,)
_ENGINE: Final = (
    errors.EngineTimeout,
    errors.EngineSchemeError,
    errors.EngineSocketError,
    errors.EngineRequestError,
)


@frozen
class Body:
    """A body that is sent or answered. ``schema``: a JSON schema, or the struct that the program decodes it with."""

    media_type: str
    schema: Schema
    text: str = ""
    #: What the struct's own check asks for besides.
    also: Mapping[str, Any] = {}


@frozen
class Operation:
    """One method of one path. ``auth``: ``token`` (an agent's), ``password`` (HTTP basic), ``session`` (of an
    enrolment), or none. ``success``: status -> what is answered, None for no body."""

    path: str
    method: Literal["get", "head", "post"]
    operation_id: str
    summary: str
    text: str
    success: Mapping[int, Body | None]
    listener: Literal["agents", "enrollment"] = "agents"
    auth: Literal["", "token", "password", "session"] = ""
    query: Mapping[str, str] = {}  # of text that isn't empty
    request: Body | None = None
    refusals: tuple[type[CommsError], ...] = ()


_NDJSON: Final = "application/x-ndjson"
_JSON: Final = "application/json"

_EVENTS_TEXT: Final = (
    "Lines, each a JSON object: the agent's metadata, then for each event a header line and a data line. Agents send it"
    " as `application/json`; the type isn't looked at."
)
_RESULTS: Final = {
    "type": "object",
    "required": ["results"],
    "properties": {
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "id", "result", "status"],
                "properties": {
                    "index": {"type": ["string", "null"]},
                    "id": {"type": ["string", "null"]},
                    "result": {"type": "string"},
                    "status": {"type": "integer"},
                },
            },
        }
    },
}
_TOKEN_REPLY: Final = {
    "type": "object",
    "required": ["token"],
    "properties": {"token": {"type": "string", "description": "JWT, 5 to 15 minutes"}},
}


_FULL_SCAN: Final = {
    "required": ["type", "packages"],
    "if": {"properties": {"type": {"const": "fullscan"}}},
    "then": {
        "required": ["agent", "hotfixes", "os"],
        "properties": {"os": {"type": "object", "required": list(ScanSystem.__struct_fields__)}},
    },
}


def _data(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The management API's envelope."""
    return {
        "type": "object",
        "required": ["data", "error"],
        "properties": {"data": schema, "error": {"const": 0}},
    }


def _look(path: str, operation_id: str, summary: str, text: str) -> tuple[Operation, Operation]:
    return with_head(Operation(path, "get", operation_id, summary, text, {200: None}))


def with_head(get: Operation) -> tuple[Operation, Operation]:
    """A HEAD is answered as its GET, without a body."""
    return get, evolve(get, method="head", operation_id=f"{get.operation_id}Head", success=dict.fromkeys(get.success))


OPERATIONS: Final[tuple[Operation, ...]] = (
    *_look(f"{PREFIX}/", "alive", "The server is there", "Nothing behind it is asked."),
    *_look(
        f"{PREFIX}/ready",
        "ready",
        "All that is behind the server can take something",
        "503 says what fails, as `wazuh-comms status` does. Also 503 while the node is drained.",
    ),
    *_look(
        f"{PREFIX}/ready/any",
        "readyForAny",
        "Some of what is behind the server can take something",
        "For balancers: 503 only when nothing could be taken, so that an indexer's outage takes no node away.",
    ),
    Operation(
        f"{PREFIX}/authentication",
        "post",
        "authenticate",
        "An agent's uuid and key become a token",
        "The token is a JWT that is good until its `exp`, 5 to 15 minutes (mostly 870 s); the last log-in is recorded.",
        {200: Body(_JSON, _TOKEN_REPLY)},
        request=Body(_JSON, Credentials),
        refusals=(errors.InvalidKey, errors.AgentUnknown, *_BODY, errors.TimeLimitExceeded, errors.TooManyRequests),
    ),
    Operation(
        f"{PREFIX}/commands",
        "get",
        "pollCommands",
        "A long poll for commands",
        "Answered as soon as there are commands for the agent; with 408 when nothing came within `timeouts.commands`, "
        "when the token ends, and when the agent's next poll displaces it.",
        {200: Body(_JSON, PostedCommands)},
        auth="token",
        refusals=(*_TOKEN, errors.TimeLimitExceeded, errors.TooManyRequests),
    ),
    Operation(
        f"{PREFIX}/events/stateless",
        "post",
        "sendStatelessEvents",
        "Events for the engine",
        "Streamed through to the engine, unchanged. Answered when the engine has taken all of it, or, what it will "
        "never take, when that is in the quarantine (`events.invalid`).",
        {204: None},
        auth="token",
        request=Body(_NDJSON, {"type": "string"}, _EVENTS_TEXT),
        refusals=(
            *_TOKEN,
            errors.MalformedBody,
            errors.EngineRefused,
            *_BODY,
            errors.TimeLimitExceeded,
            errors.TooManyRequests,
            *_ENGINE,
            errors.StorageFull,
        ),
    ),
    Operation(
        f"{PREFIX}/events/stateful",
        "post",
        "sendStatefulEvents",
        "Events for the state indices",
        "Answered with one result for each event, in their order, when each is in the index or in the quarantine.",
        {200: Body(_JSON, _RESULTS)},
        auth="token",
        request=Body(_NDJSON, {"type": "string"}, _EVENTS_TEXT),
        refusals=(
            *_TOKEN,
            errors.MalformedBody,
            *_BODY,
            errors.TimeLimitExceeded,
            errors.TooManyRequests,
            errors.StorageFull,
        ),
    ),
    *with_head(
        Operation(
            f"{PREFIX}/files",
            "get",
            "getFile",
            "A file of a group",
            "A file of one of the agent's groups, by its exact name. Agents ask for `<group>.yml`, older ones for"
            " `<group>.conf`.",
            {200: Body("application/octet-stream", {"type": "string", "format": "binary"})},
            auth="token",
            query={"file_name": "the file's name; decoded once, `+` stays `+`"},
            refusals=(
                *_TOKEN,
                errors.TooManyRequests,
                errors.FileIsFolder,
                errors.FileNameHasFolders,
                errors.FileMissing,
            ),
        )
    ),
    Operation(
        f"{PREFIX}/vulnerability/scan",
        "post",
        "scan",
        "A vulnerability scan",
        "Forwarded to the engine, whose answer is passed on as it is, with its status and type; it may be empty. The "
        "body has at most 8 MiB, each package half a MiB.",
        {200: None},
        auth="token",
        request=Body(_JSON, ScanRequest, also=_FULL_SCAN),
        refusals=(*_TOKEN, *_BODY, errors.TimeLimitExceeded, errors.TooManyRequests, *_ENGINE),
    ),
    Operation(
        "/security/user/authenticate",
        "post",
        "logInToEnrol",
        "A user's name and password become a session",
        "The session is for one enrolment and lives for 300 s. Wrong passwords are slowed down.",
        {200: Body(_JSON, _data(_TOKEN_REPLY))},
        listener="enrollment",
        auth="password",
        refusals=(Unauthorized, TooManyAttempts, *_BODY, errors.TimeLimitExceeded),
    ),
    Operation(
        "/agents",
        "post",
        "enrol",
        "An agent joins",
        "The key is the agent's own; only its hash is kept.",
        {201: Body(_JSON, _data({"type": "object"}))},
        listener="enrollment",
        auth="session",
        request=Body(_JSON, EnrolledAgent),
        refusals=(Unauthorized, TooManyAttempts, errors.AgentExists, *_BODY, errors.TimeLimitExceeded),
    ),
)
