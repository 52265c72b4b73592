"""Paths to handlers, exactly: no redirects, no patterns, no trailing slashes. Agents take a redirect for a failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NoReturn
from urllib.parse import quote, unquote

from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.refusals import MethodNotAllowed, RouteUnknown

__all__ = ["Handler", "Routes"]

#: RFC 3986, 2.2: encoded it is no slash, and a path with one is another path, which a proxy's rules don't know as ours.
ENCODED_SLASH: Final = "%2f"

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class Routes:
    """Handlers, looked up by path and method. HEAD is only there where it is named: a poll isn't a thing to be looked
    at from outside.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Handler]] = MappingProxyType({})) -> None:
        self._exact: dict[tuple[str, str], Handler] = {}
        self._methods: dict[str, list[str]] = {}
        for path, methods in table.items():
            for method, handler in methods.items():
                self.add(path, method, handler)

    def add(self, path: str, method: str, handler: Handler) -> None:
        assert (method, path) not in self._exact
        self._exact[method, path] = handler
        self._methods.setdefault(path, []).append(method)

    @property
    def table(self) -> Mapping[str, Sequence[str]]:
        """Path -> its methods."""
        return self._methods

    def find(self, scope: Scope) -> Handler:
        """The handler of a request. Raises ``RouteUnknown``, ``MethodNotAllowed``."""
        handler = self._exact.get((scope["method"], scope["path"]))
        raw = scope.get("raw_path") or b""  # ASGI lets a server leave it out
        return handler if handler is not None and b"%" not in raw else self._find_slowly(scope, raw)

    def _find_slowly(self, scope: Scope, raw: bytes) -> Handler:
        path = origin_path(raw.decode("ascii") or quote(scope["path"]))
        if ENCODED_SLASH in path.lower():
            raise RouteUnknown
        path = unquote(path)
        handler = self._exact.get((scope["method"], path))
        return handler if handler is not None else self._refuse(path)

    def _refuse(self, path: str) -> NoReturn:
        if (methods := self._methods.get(path)) is not None:
            raise MethodNotAllowed(methods)
        raise RouteUnknown


def origin_path(target: str) -> str:
    """Of a target in absolute form, as proxies send it (RFC 9112, 3.2.2): the path; anything else as it is. Before
    anything is decoded: an encoded colon or slash makes no scheme.
    """
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return target
    _, slash, path = rest.partition("/")
    return slash + path if slash else "/"
