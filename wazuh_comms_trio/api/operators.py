"""The operators' listener: for reading alone, for people, balancers and Prometheus. An ordinary Quart application.

What it says is the node's, which it asks for it; it shows no key, no token and no event.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final

import msgspec
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from wazuh_comms_trio.api.metrics_page import render
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.errors import CommsError

__all__ = ["create_operators_app"]

#: Asks the node: ``metrics``, ``status`` or ``ready``. Raises ``BackendUnavailable``.
Ask = Callable[[str], Awaitable[dict[str, Any]]]

OPENAPI: Final = "openapi.json"
#: Forms of one snapshot that are kept.
PAGES: Final = 8
#: A connection carries one request: the server shuts old ones down.
CLOSE: Final = {"Connection": "close", "Cache-Control": "no-store"}


def create_operators_app(ask: Ask, *, token: str | None = None) -> QuartTrio:
    """``token``: what requests must bring, where one is set."""
    app = QuartTrio(__name__, static_folder=None)
    pages = _Pages()
    app.config["MAX_CONTENT_LENGTH"] = 4096

    @app.before_request
    async def check() -> None:
        if request.method != "GET":
            raise CommsError("Method not allowed", code=405)
        given = request.headers.get("Authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise CommsError("A token is needed", code=401)

    @app.errorhandler(Exception)
    async def refuse(error: Exception) -> Response:
        if isinstance(error, HTTPException):  # Quart's own
            error = CommsError(error.name, code=error.code or 400)
        refusal = describe(error)
        if refusal.is_bug:
            app.logger.error("%s failed", request.path, exc_info=error)
        headers = dict(CLOSE)
        if refusal.status == 405:
            headers["Allow"] = "GET"
        if refusal.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="operators"'
        return Response(refusal.body, refusal.status, headers=headers, content_type="application/json")

    @app.get("/metrics", provide_automatic_options=False)
    async def metrics() -> Response:
        body, content_type = pages.page(await ask("metrics"), request.headers.get("Accept", ""))
        return Response(body, 200, headers=CLOSE, content_type=content_type)

    @app.get("/healthz", provide_automatic_options=False)
    async def healthz() -> Response:
        await ask("ready")  # whatever it says: the node answers
        return _json({"status": "ok"})

    @app.get("/ready", provide_automatic_options=False)
    async def ready() -> Response:
        document = await ask("ready")
        return _json(document, 200 if document["ready"] else 503)

    @app.get("/status", provide_automatic_options=False)
    async def status() -> Response:
        return _json(await ask("status"))

    @app.get("/openapi.json", provide_automatic_options=False)
    async def openapi() -> Response:
        file = resources.files("wazuh_comms_trio").joinpath(OPENAPI)
        if not file.is_file():
            raise CommsError("Not found", code=404)
        return Response(file.read_bytes(), 200, headers=CLOSE, content_type="application/json")

    return app


class _Pages:
    """The pages of one snapshot: it is the same object for all who ask within a second."""

    def __init__(self) -> None:
        self._snapshot: object = None
        self._pages: dict[str, tuple[bytes, str]] = {}

    def page(self, snapshot: dict[str, Any], accept: str) -> tuple[bytes, str]:
        if snapshot is not self._snapshot or len(self._pages) > PAGES:
            self._snapshot, self._pages = snapshot, {}
        if accept not in self._pages:
            self._pages[accept] = render(snapshot, accept)
        return self._pages[accept]


def _json(document: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, headers=CLOSE, content_type="application/json")
