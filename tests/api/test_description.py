"""The operations on paper are those that the applications have, and their refusals those of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tests.http.server.listener import LIMITS, TIMEOUTS, Fakes, app_of
from wazuh_comms_trio.api import problems
from wazuh_comms_trio.api.description.openapi import openapi_document, refusals_of
from wazuh_comms_trio.api.description.operations import EVERYWHERE, OPERATIONS
from wazuh_comms_trio.api.enrollment import create_enrollment_app


def test_every_route_of_the_agents_is_an_operation() -> None:
    app: Any = app_of(Fakes(), LIMITS, TIMEOUTS)
    routes = {(path, method.lower()) for path, methods in app.routes.table.items() for method in methods}
    assert routes == {(each.path, each.method) for each in OPERATIONS if each.listener == "agents"}


def test_every_route_of_the_enrolment_is_an_operation() -> None:
    app = create_enrollment_app(cast(Any, None), LIMITS)
    routes = {(path, method.lower()) for path, methods in app.routes.table.items() for method in methods}
    assert routes == {(each.path, each.method) for each in OPERATIONS if each.listener == "enrollment"}


def test_every_line_of_the_table_of_errors_is_some_operations() -> None:
    told = {family for each in OPERATIONS for family in each.refusals} | set(EVERYWHERE)
    for family in problems.STATUS:
        assert any(issubclass(one, family) for one in told), family


def test_a_refusal_stands_under_the_status_that_it_gets() -> None:
    for operation in OPERATIONS:
        for status, errors in refusals_of(operation).items():
            assert {problems.describe(error).status for error in errors} == {status}


def test_the_document_refers_to_what_is_in_it() -> None:
    document = openapi_document("1")
    text = str(document)
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text
    ids = [each.operation_id for each in OPERATIONS]
    assert len(ids) == len(set(ids))
    assert (Path(__file__).parents[2] / "wazuh_comms_trio/openapi.json").exists()
