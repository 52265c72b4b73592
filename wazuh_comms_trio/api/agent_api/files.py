"""``GET /api/v1/files?file_name=NAME``: a file of the agent's group, streamed."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from math import inf

import trio

from wazuh_comms_trio.api.agent_api.base import PREFIX, AgentApi
from wazuh_comms_trio.backends.interfaces import StoredFile
from wazuh_comms_trio.errors import BackendUnavailable, MalformedRequest
from wazuh_comms_trio.http.server.bodies import skip_body
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.deadlines import give_up_at

__all__ = ["add_files", "file_name"]


def file_name(query: bytes) -> bytes:
    """The query's ``file_name`` as it came: agents don't encode it, so the service decodes it, once. Raises
    ``MalformedRequest``.
    """
    values = [value for name, _, value in (part.partition(b"=") for part in query.split(b"&")) if name == b"file_name"]
    if len(values) != 1:
        raise MalformedRequest("file_name is missing" if not values else "file_name is given more than once")
    return values[0]


def add_files(api: AgentApi) -> None:
    api.add_handler(f"{PREFIX}/files", partial(files, api), "GET", "HEAD")


async def files(api: AgentApi, scope: Scope, receive: Receive, send: Send) -> None:
    """The time limit is for opening the file, and for each part of it that is read."""
    caller = await api.identify(scope)
    with api.admitted("files", caller):
        await skip_body(receive)
        await _answer(api, caller, scope, send)


async def _answer(api: AgentApi, caller: Caller, scope: Scope, send: Send) -> None:
    name = file_name(scope["query_string"])
    now = trio.current_time()
    with trio.CancelScope(deadline=give_up_at(now + api.timeouts.files, now)) as limit:
        async with api.services.files.open_file(caller, name) as file:
            left = file.size if scope["method"] != "HEAD" else 0
            with api.admitted_file(caller, left):
                await _send(api, file, left, send, limit)
    if limit.cancelled_caught:
        raise BackendUnavailable  # a folder that hangs; after the reply's head it breaks the reply off


async def _send(api: AgentApi, file: StoredFile, left: int, send: Send, limit: trio.CancelScope) -> None:
    """The reply with ``left`` bytes of the file."""
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(file.size).encode("ascii"))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if not left:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    async with aclosing(file.chunks()) as chunks:
        async for chunk in chunks:
            left -= len(chunk)
            limit.deadline = inf  # sending has limits of its own
            await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
            limit.deadline = trio.current_time() + api.timeouts.files
