"""The one table: every family of errors has its status, and nothing that isn't meant for clients gets out."""

from __future__ import annotations

import json

import pytest

from tests.product_modules import import_all
from wazuh_comms_trio import errors
from wazuh_comms_trio.api.problems import describe, describe_management
from wazuh_comms_trio.backends.interfaces import BodyRefused, ConsumedBody
from wazuh_comms_trio.errors import BackendUnavailable, CommsError
from wazuh_comms_trio.http.server.refusals import (
    CodingUnsupported,
    Describe,
    HeadTooLarge,
    MethodNotAllowed,
    Refusal,
    RouteUnknown,
    ServerError,
)
from wazuh_comms_trio.services.authentication.login_throttle import TooManyAttempts
from wazuh_comms_trio.services.enrollment import Unauthorized

EXPECTED = {
    errors.MalformedRequest: (400, 400),
    errors.MalformedBody: (400, 2709),
    errors.ClientDisconnected: (400, 2708),
    errors.BodyTooLarge: (413, 413),
    errors.TimeLimitExceeded: (408, 408),
    errors.InvalidKey: (401, 401),
    errors.AgentUnknown: (403, 403),
    errors.TokenInvalid: (403, 2706),
    errors.TokenExpired: (403, 2707),
    errors.FileIsFolder: (400, 2704),
    errors.FileNameHasFolders: (400, 2705),
    errors.FileMissing: (404, 404),
    errors.AgentExists: (409, 409),
    errors.BackendUnavailable: (503, 503),
    errors.StorageFull: (503, 503),
    errors.Overloaded: (503, 503),
    errors.TooManyRequests: (429, 429),
    errors.DocumentUnreadable: (503, 503),
    errors.EngineRefused: (400, 2710),
    errors.EngineTimeout: (503, 2800),
    errors.EngineSchemeError: (503, 2801),
    errors.EngineSocketError: (503, 2802),
    errors.EngineRequestError: (503, 2803),
    RouteUnknown: (404, 404),
    CodingUnsupported: (415, 415),
    HeadTooLarge: (431, 431),
    ServerError: (500, 500),
    Unauthorized: (401, 401),
    TooManyAttempts: (429, 429),
}


@pytest.fixture(scope="module", autouse=True)
def _all_families() -> None:
    """A class is among another's subclasses once its module is imported."""
    for _ in import_all():
        pass


def families(root: type[CommsError] = CommsError) -> set[type[CommsError]]:
    return {root}.union(*(families(child) for child in root.__subclasses__()))


def test_every_family_is_in_the_table() -> None:
    """A backend's own kinds of "not now" are told as such; every other family has its line."""
    ours = {family for family in families() if family.__module__.startswith("wazuh_comms_trio.")}
    backends = {
        family for family in ours if issubclass(family, BackendUnavailable) and ".backends." in family.__module__
    }
    backends |= {family for family in ours if "quarantine" in family.__module__}
    assert ours - backends - {CommsError, MethodNotAllowed, BodyRefused} == set(EXPECTED)
    assert {describe(family("not now")).status for family in backends} <= {503}


def test_a_body_that_an_engine_keeps_is_refused_as_any() -> None:
    kept, plain = BodyRefused("no", ConsumedBody(None, 0, 0, b"")), errors.EngineRefused("no")
    assert describe(kept) == describe(plain)


@pytest.mark.parametrize("error", [errors.Overloaded(7), errors.TooManyRequests(7)])
def test_when_to_come_again_is_said(error: CommsError) -> None:
    assert (b"retry-after", b"7") in describe(error).headers


@pytest.mark.parametrize("describe_", [describe, describe_management])
def test_each_503_says_when_to_come_again(describe_: Describe) -> None:
    """Whatever is away or full: balancers and clients in general read it."""
    needy = families(BackendUnavailable) - {errors.Overloaded}
    found = [describe_(errors.Overloaded()), *(describe_(family("not now")) for family in needy)]
    assert len(found) > 8
    for refusal in found:
        (seconds,) = [int(value) for name, value in refusal.headers if name == b"retry-after"]
        assert refusal.status == 503
        assert 1 <= seconds <= 30


@pytest.mark.parametrize("describing", [describe, describe_management])
def test_every_429_says_it_and_no_other_but_503(describing: Describe) -> None:
    """The enrolment's didn't."""
    for family, (status, _) in EXPECTED.items():
        names = [name for name, _ in describing(family()).headers]
        assert (b"retry-after" in names) == (status in (429, 503)), family


@pytest.mark.parametrize("family", EXPECTED, ids=lambda family: family.__name__)
def test_status_and_code(family: type[CommsError]) -> None:
    problem = describe(family())
    assert not problem.is_bug
    document = json.loads(problem.body)
    assert (problem.status, document["code"]) == EXPECTED[family]
    assert document["message"]
    assert set(document) == {"message", "code"}


def test_the_texts_that_are_part_of_the_contract() -> None:
    assert message(describe(errors.InvalidKey())) == "Invalid key"
    assert message(describe(errors.AgentUnknown())) == "Agent does not exist"
    assert message(describe(errors.FileMissing())) == "File does not exist"
    assert message(describe(errors.TimeLimitExceeded())) == "Request exceeded the processing time limit"


def message(problem: Refusal) -> str:
    text: str = json.loads(problem.body)["message"]
    return text


@pytest.mark.parametrize("error", [ValueError("path /etc/secret"), CommsError("path /etc/secret"), KeyError(1)])
def test_what_isnt_in_the_table_says_nothing(error: Exception) -> None:
    problem = describe(error)
    assert problem.is_bug
    assert problem.status == 500
    assert json.loads(problem.body) == {"message": "Internal server error", "code": 500}


def test_405_names_the_methods() -> None:
    problem = describe(MethodNotAllowed(["GET", "HEAD"]))
    assert problem.status == 405
    assert (b"allow", b"GET, HEAD") in problem.all_headers


def test_the_management_apis_shape() -> None:
    problem = describe_management(errors.AgentExists())
    assert problem.status == 409
    assert json.loads(problem.body) == {"title": "Conflict", "detail": "Agent already exists", "error": 409}
    problem = describe_management(Unauthorized())
    assert (b"www-authenticate", b'Basic realm="wazuh"') in problem.all_headers
    assert describe_management(OSError("/etc")).status == 500


def test_messages_stay_json() -> None:
    problem = describe(errors.MalformedBody('a "quoted"\nline \x00 \u2028 é'))
    assert message(problem) == 'a "quoted"\nline \x00 \u2028 é'
