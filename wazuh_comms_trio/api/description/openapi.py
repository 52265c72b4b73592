"""The operations as an OpenAPI 3.1 document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from wazuh_comms_trio.api.description.operations import EVERYWHERE, OPERATIONS, Body, Operation
from wazuh_comms_trio.api.problems import describe, describe_management, extra_headers
from wazuh_comms_trio.errors import CommsError
from wazuh_comms_trio.http.server.refusals import MethodNotAllowed

__all__ = ["openapi_document", "refusals_of", "sample"]

_SCHEMAS: Final = "#/components/schemas/"

_PROBLEM: Final = {
    "type": "object",
    "required": ["message", "code"],
    "properties": {"message": {"type": "string"}, "code": {"type": "integer"}},
}
_MANAGEMENT_PROBLEM: Final = {
    "type": "object",
    "required": ["title", "detail", "error"],
    "properties": {"title": {"type": "string"}, "detail": {"type": "string"}, "error": {"type": "integer"}},
}
_SECURITY: Final = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "of `authentication`, good until its `exp`",
    },
    "password": {"type": "http", "scheme": "basic", "description": "one of `enrollment.users`"},
    "session": {"type": "http", "scheme": "bearer", "description": "of `/security/user/authenticate`, 300 s"},
}
_TEXT: Final = {"type": "string", "minLength": 1}
_PORTS: Final = {"agents": "27000", "enrollment": "55000"}
_SERVERS: Final = {
    listener: {
        "url": "https://{host}:{port}",
        "variables": {"host": {"default": "localhost"}, "port": {"default": port}},
    }
    for listener, port in _PORTS.items()
}


def sample(family: type[CommsError]) -> CommsError:
    """An error of this class, as it is raised when nothing more is known."""
    return MethodNotAllowed(["GET"]) if family is MethodNotAllowed else family()


def refusals_of(operation: Operation) -> dict[int, list[CommsError]]:
    """Status -> what an operation may be refused with, those of any request included; the smallest status first."""
    found: dict[int, list[CommsError]] = {}
    for family in (*operation.refusals, *EVERYWHERE):
        error = sample(family)
        found.setdefault(describe(error).status, []).append(error)
    # Where a path is known no other method's errors are its own.
    return {status: errors for status, errors in sorted(found.items()) if status != 405}


def openapi_document(version: str) -> dict[str, Any]:
    """The document of the agents' API and the enrolment. ``version``: the program's. JSON as it stands."""
    schemas: dict[str, Any] = {"Problem": _PROBLEM, "ManagementProblem": _MANAGEMENT_PROBLEM}
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        path = paths.setdefault(operation.path, {"servers": [_SERVERS[operation.listener]]})
        path[operation.method] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wazuh-comms-apid",
            "version": version,
            "description": "What agents are served, and how they join. Paths are exact: no redirects.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [_SERVERS["agents"]],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY},
    }


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.operation_id,
        "summary": operation.summary,
        "description": operation.text,
        "responses": _responses(operation, schemas),
        "security": [{operation.auth: []}] if operation.auth else [],
    }
    if operation.query:
        made["parameters"] = [
            {
                "name": name,
                "in": "query",
                "required": True,
                "description": text,
                "schema": dict(_TEXT),
            }
            for name, text in operation.query.items()
        ]
    if operation.request is not None:
        made["requestBody"] = {"required": True, "content": _content(operation.request, schemas)}
        if operation.request.text:
            made["requestBody"]["description"] = operation.request.text
    return made


def _responses(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for status, body in operation.success.items():
        made[str(status)] = {"description": HTTPStatus(status).phrase}
        if body is not None:
            made[str(status)]["content"] = _content(body, schemas)
    problem = "Problem" if operation.listener == "agents" else "ManagementProblem"
    for status, errors in refusals_of(operation).items():
        made[str(status)] = _refusal(status, errors, problem, with_body=operation.method != "head")
    if operation.operation_id == "scan":
        made["default"] = {"description": "the engine's answer, as it is"}
    return made


def _refusal(status: int, errors: Iterable[CommsError], problem: str, *, with_body: bool) -> dict[str, Any]:
    shown = describe if problem == "Problem" else describe_management
    examples = {type(error).__name__: {"value": msgspec.json.decode(shown(error).body)} for error in errors}
    made: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if with_body:
        content = {"schema": {"$ref": f"{_SCHEMAS}{problem}"}, "examples": examples}
        made["content"] = {"application/json": content}
    headers = {name.decode() for error in errors for name, _ in extra_headers(error)}
    if headers:
        made["headers"] = {name.title(): {"schema": {"type": "string"}} for name in sorted(headers)}
    return made


def _content(body: Body, schemas: dict[str, Any]) -> dict[str, Any]:
    if isinstance(body.schema, Mapping):
        return {body.media_type: {"schema": dict(body.schema)}}
    (schema,), components = msgspec.json.schema_components([body.schema], ref_template=f"{_SCHEMAS}{{name}}")
    schemas.update({name.lstrip("_"): _renamed(component) for name, component in components.items()})
    whole = {"allOf": [_renamed(schema), dict(body.also)]} if body.also else _renamed(schema)
    return {body.media_type: {"schema": whole}}


def _renamed(schema: Any) -> Any:
    """Structs that are private in the program have plain names here."""
    if isinstance(schema, dict):
        return {
            name: value.replace(f"{_SCHEMAS}_", _SCHEMAS) if name == "$ref" else _renamed(value)
            for name, value in schema.items()
            if name != "title" or not isinstance(value, str)
        }
    return [_renamed(item) for item in schema] if isinstance(schema, list) else schema
