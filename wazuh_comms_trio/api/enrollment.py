"""Enrolment's application: the two calls of the management API that an agent makes when it joins."""

from __future__ import annotations

from typing import Final

import msgspec
from quart import Response, request

from wazuh_comms_trio.api.credentials import basic_credentials, bearer_token
from wazuh_comms_trio.api.problems import describe_management
from wazuh_comms_trio.api.quart_application import QuartApplication
from wazuh_comms_trio.config.models import Limits
from wazuh_comms_trio.errors import CommsError
from wazuh_comms_trio.services.enrollment import EnrollmentService

__all__ = ["create_enrollment_app"]

#: An agent's description is below 10 kB.
BODY_BYTES: Final = 65536
#: The password is in the head.
LOGIN_BYTES: Final = 8192
BUDGET_BYTES: Final = 64 * 1024 * 1024
#: Slowing down wrong passwords is part of it: at most four tries behind each other, with 8 s before each.
TIME_LIMIT: Final = 45.0


def create_enrollment_app(enrollment: EnrollmentService, limits: Limits) -> QuartApplication:
    """The application of the enrolment listeners. Errors are in the management API's shape."""
    app = QuartApplication(__name__, describe_management, limits, budget_bytes=BUDGET_BYTES)

    @app.post_view("/security/user/authenticate", body_bytes=LOGIN_BYTES, time_limit=TIME_LIMIT)
    async def log_in() -> Response:
        credentials = basic_credentials(request.scope["headers"])
        if credentials is None:
            raise CommsError("Invalid credentials", code=401)
        user, password = credentials
        client = request.scope["client"]
        token = await enrollment.log_in(user, password, peer=client[0] if client else None)
        return reply(200, {"token": token})

    @app.post_view("/agents", body_bytes=BODY_BYTES, time_limit=TIME_LIMIT)
    async def enrol() -> Response:
        token = bearer_token(request.scope["headers"])
        if token is None:
            raise CommsError("No authorization token provided", code=401)
        client = request.scope["client"]
        body = await request.body
        peer = client[0] if client else None
        return reply(201, await enrollment.enrol(token.decode("latin-1"), body, peer=peer))

    return app


def reply(status: int, data: object) -> Response:
    return Response(msgspec.json.encode({"data": data, "error": 0}), status, content_type="application/json")
