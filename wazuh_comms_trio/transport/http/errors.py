"""What can go wrong with a request over HTTP, under the numbers that the framework has for each of the services.

=======================  ======  =======  =======  ======  ========
service                  status  timeout  connect  failed  not JSON
=======================  ======  =======  =======  ======  ========
wazuh-db                 2012    2013     2013     2013    2013
engine                   2019    2020     2021     2013    2022
vulnerability detector   2024    2025     2026     2013    2027
the others               1014    1014     1013     1014    1014
=======================  ======  =======  =======  ======  ========

Each is a ``WazuhError`` and a ``WazuhInternalError``, since the framework has one or the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from wazuh_comms_trio.errors import AnswerInvalid, WazuhError, WazuhInternalError


class Numbers(NamedTuple):
    """The numbers of one service's failures."""

    status: int
    timeout: int
    connect: int
    failed: int
    not_json: int


_NUMBERS: Final[Mapping[str, Numbers]] = {
    "wdb-http": Numbers(2012, 2013, 2013, 2013, 2013),
    "engine": Numbers(2019, 2020, 2021, 2013, 2022),
    "engine-events": Numbers(2019, 2020, 2021, 2013, 2022),
    "vulnerability-detector": Numbers(2024, 2025, 2026, 2013, 2027),
}
_OTHERS: Final = Numbers(1014, 1014, 1013, 1014, 1014)


def numbers_of(service: str) -> Numbers:
    """By the registry's name."""
    return _NUMBERS.get(service, _OTHERS)


class HTTPError(WazuhInternalError, WazuhError):
    """Anything that went wrong with a request over HTTP. See the table of :mod:`.errors` for the numbers."""


class HTTPConnectError(HTTPError):
    """No connection; nothing was sent."""


class HTTPFailed(HTTPError):
    """The connection failed, or was closed without an answer. ``sent``: the request may have been carried out."""

    def __init__(self, code: int, reason: str, *, sent: bool = True) -> None:
        super().__init__(code, reason)
        self.sent = sent


class HTTPTimeout(HTTPError, TimeoutError):
    """No whole answer within the time given. The request may have been carried out."""


class HTTPAnswerInvalid(HTTPError, AnswerInvalid, ValueError):
    """A successful answer that isn't JSON, or of another form than this route has."""


class HTTPStatusError(HTTPError):
    """An answer with a status of 400 or more. ``status``, ``headers`` (names in lower case) and ``body`` are the
    answer's."""

    def __init__(self, code: int, status: int, headers: Mapping[str, str], body: bytes) -> None:
        text = body.decode(errors="replace").strip()
        super().__init__(code, f"{status} {text}".strip())
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body's JSON object, empty where it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def word(self) -> str | None:
        """The ``error`` of the body, such as ``feed_not_ready``."""
        word = self.fields.get("error")
        return word if isinstance(word, str) else None

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later: as the answer says, else for 503."""
        said = self.fields.get("retryable")
        return said if isinstance(said, bool) else self.status == 503

    @property
    def retry_after(self) -> int | None:
        """Seconds after which to try again, where the answer says it."""
        value = self.headers.get("retry-after", "")
        return int(value) if value.isascii() and value.isdigit() else None


class RouteMissing(HTTPStatusError):
    """404 or 405: the server has no such route, so it is of another release than was thought. It doesn't say that data
    are missing."""


def status_error(service: str, status: int, headers: Mapping[str, str], body: bytes) -> HTTPStatusError:
    """The fitting one. A 404 that names its error in JSON is the route's own."""
    error = HTTPStatusError(numbers_of(service).status, status, headers, body)
    if status == 405 or (status == 404 and error.word is None):
        return RouteMissing(error.code, status, headers, body)
    return error
