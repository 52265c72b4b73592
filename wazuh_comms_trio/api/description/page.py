"""The operations as ``docs/api.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from wazuh_comms_trio.api.description.openapi import refusals_of, sample
from wazuh_comms_trio.api.description.operations import EVERYWHERE, OPERATIONS, Body, Operation
from wazuh_comms_trio.api.problems import describe

__all__ = ["markdown"]

_HEAD: Final = """\
# The agents' API

HTTP/1.1 over TLS, one request a connection or many. The agents' listener is on port 27000, the enrolment, where it is
on, on 55000. Paths are exact: no redirects, no trailing slashes, and an encoded slash is no slash. The same as an
OpenAPI 3.1 document: [openapi.json](../wazuh_comms_trio/openapi.json), which the operators' listener serves. This page
and the document are made from the routes and the table of errors (`scripts/make-docs`), and the tests run the document
against a live server. Local programs post commands to a Unix socket: [operating.md](operating.md).

A reply that isn't a success is JSON: `{"message", "code"}` from the agents' API, `{"title", "detail", "error"}` from
the enrolment. The code is Wazuh's number where there is one, else the status. What a 2xx promises:
[guarantees.md](guarantees.md).
"""
_AUTH: Final = {
    "": "none",
    "token": "`Authorization: Bearer` with the token of `authentication`",
    "password": "HTTP basic, one of `enrollment.users`",
    "session": "`Authorization: Bearer` with the session",
}


def markdown() -> str:
    """The page."""
    paths: dict[tuple[str, str], list[Operation]] = {}
    for operation in OPERATIONS:
        paths.setdefault((operation.listener, operation.path), []).append(operation)
    return "\n".join([_HEAD, *map(_section, paths.values()), _everywhere()])


def _section(operations: Sequence[Operation]) -> str:
    """The page's section about one path. A HEAD is its GET without a body."""
    operation = operations[0]
    methods = ", ".join(each.method.upper() for each in operations)
    lines = [f"## {methods} {operation.path}", "", f"{operation.summary}. {operation.text}", ""]
    if operation.auth:
        lines.append(f"* Authorization: {_AUTH[operation.auth]}.")
    lines += [f"* Query: `{name}`: {text}." for name, text in operation.query.items()]
    if operation.request is not None:
        lines.append(f"* Body: {_body(operation.request)}")
    for status, body in operation.success.items():
        nothing = "the engine's answer." if operation.operation_id == "scan" else "no body."
        lines.append(f"* {status}: {nothing if body is None else _body(body)}")
    own = {type(error) for errors in refusals_of(operation).values() for error in errors} - set(EVERYWHERE)
    if own:
        lines += ["", "| status | code | message |", "|---|---|---|"]
        for status, errors in refusals_of(operation).items():
            lines += [f"| {status} | {error.code} | {error.message} |" for error in errors if type(error) in own]
    return "\n".join([*lines, ""])


def _body(body: Body) -> str:
    """Text about a body: its type, its meaning, and its members, those that may be missing in brackets."""
    members = ""
    if not isinstance(body.schema, Mapping):
        fields = msgspec.structs.fields(body.schema)
        names = (f"`{field.name}`" if field.required else f"[`{field.name}`]" for field in fields)
        members = f" with {', '.join(names)}"
    text = f" {body.text}" if body.text else ""
    return f"`{body.media_type}`{members}.{text}"


def _everywhere() -> str:
    lines = ["## Any request", "", "| status | code | message |", "|---|---|---|"]
    rows = []
    for family in EVERYWHERE:
        error = sample(family)
        rows.append((describe(error).status, error.code, error.message))
    lines += [f"| {status} | {code} | {message} |" for status, code, message in sorted(set(rows))]
    return "\n".join([*lines, ""])
