"""The engine, the vulnerability detector, inventory sync and remoted's admin socket over HTTP, all of 5.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.transport.http.call import (
    HTTPCall,
    HTTPRequest,
    agent_header,
    agent_number,
    as_object,
    get,
    nothing,
    post,
)
from wazuh_comms_trio.transport.releases.release import Release, only_in

_SCAN_BYTES: Final = 4096
_DETECTOR: Final = "/vulnerability-detector"


def _since(release: Release, first: str, what: str) -> None:
    if not release.at_least(first):
        only_in(release, "G", "G", what)


# --- engine ---


def engine_metrics() -> HTTPCall[dict[str, Any]]:
    """All of the engine's metrics. 5.0.0-alpha0 and later."""

    def prepare(release: Release) -> HTTPRequest:
        _since(release, "alpha", "the engine over HTTP")
        return post("/metrics/dump", {})

    return HTTPCall("engine_metrics", "engine", prepare, as_object)


def engine_status() -> HTTPCall[dict[str, Any]]:
    """``ready``, and the states of spaces, IOC and geo databases. 5.0.0-beta3 and later."""

    def prepare(release: Release) -> HTTPRequest:
        _since(release, "5.0.0-beta3", "the engine's status")
        return get("/status")

    return HTTPCall("engine_status", "engine", prepare, as_object)


#: What the engine's API offers beside its status and its metrics' dump; everything else of it is private.
_ENGINE_ROUTES: Final = frozenset(
    {"/metrics/list", "/metrics/get", "/metrics/enable", "/content/ioc/update", "/content/ioc/state"}
)


def engine_request(route: str, message: Mapping[str, Any] | None = None) -> HTTPCall[Any]:
    """Any other route of the engine that programs may use: ``/metrics/list``, ``/metrics/get``, ``/metrics/enable``,
    ``/content/ioc/update``, ``/content/ioc/state``. 1012 for another one. 5.0.0-alpha0 and later."""
    if not isinstance(route, str) or route not in _ENGINE_ROUTES:
        raise MessageInvalid(1012, f"{route!r:.60} is no route of the engine for programs")
    content = dict(message or {})

    def prepare(release: Release) -> HTTPRequest:
        _since(release, "alpha", "the engine over HTTP")
        return post(route, content)

    return HTTPCall(f"engine {route}", "engine", prepare, lambda answer: answer, repeatable=False)


def engine_events(batch: bytes) -> HTTPCall[None]:
    """Hand events to the engine (the service is ``engine-events``): lines that begin with ``H`` and ``E``, as they
    come. ``HTTPStatusError`` 400 for a batch that it can't read, 413 for one that is too large. Never sent twice.
    5.0.0-alpha0 and later."""
    if not isinstance(batch, bytes) or not batch:
        raise MessageInvalid(1012, "a batch of events is bytes, at least one")

    def prepare(release: Release) -> HTTPRequest:
        _since(release, "alpha", "the engine over HTTP")
        return HTTPRequest("POST", "/events/enriched", (("Content-Type", "application/x-ndjson"),), batch)

    return HTTPCall("engine_events", "engine-events", prepare, nothing, repeatable=False, as_bytes=True)


# --- vulnerability detector ---


def scanner_status() -> HTTPCall[dict[str, Any]]:
    """``available``, ``status``, ``enabled``, ``offset``, ``last_successful_update``. 5.0.0-beta3 and later."""

    def prepare(release: Release) -> HTTPRequest:
        _since(release, "5.0.0-beta3", "the vulnerability detector over HTTP")
        return get(f"{_DETECTOR}/status")

    return HTTPCall("scanner_status", "vulnerability-detector", prepare, as_object)


def scanner_offset() -> HTTPCall[int]:
    """The offset up to which the feed was read. 5.0.0 and later."""

    def prepare(release: Release) -> HTTPRequest:
        only_in(release, "G", "G", "the detector's offset")
        return get(f"{_DETECTOR}/offset")

    return HTTPCall(
        "scanner_offset", "vulnerability-detector", prepare, lambda answer: int(as_object(answer)["offset"])
    )


def scan_agent(agent_id: int | str) -> HTTPCall[None]:
    """Have an agent scanned; an answer means that the scan is queued. ``HTTPStatusError`` 503 with the word
    ``feed_not_ready``, ``scan_queue_full`` and others, and whether it may be asked again. 5.0.0 and later."""
    number = agent_number(agent_id)

    def prepare(release: Release) -> HTTPRequest:
        only_in(release, "G", "G", "a scan on demand")
        return post(f"{_DETECTOR}/scan", {"agent_id": f"{number:03}"})

    return HTTPCall("scan_agent", "vulnerability-detector", prepare, nothing, repeatable=False, as_bytes=True)


def update_scanner(topic: str, offset: Literal[0, -1] | None = None) -> HTTPCall[None]:
    """Have the detector's feed updated from the beginning (0), from its end (-1), or from where it is. 409 while it is
    under way, 404 for an unknown topic (``HTTPStatusError``). 5.0.0 and later."""
    if not isinstance(topic, str) or not topic or len(topic) > _SCAN_BYTES // 2:
        raise MessageInvalid(1012, f"{topic!r:.60} is no topic")
    if offset not in (None, 0, -1) or isinstance(offset, bool):
        raise MessageInvalid(1012, f"an offset is 0 or -1, not {offset!r:.60}")

    def prepare(release: Release) -> HTTPRequest:
        only_in(release, "G", "G", "an update on demand")
        return post("/ondemand", {"topic": topic} if offset is None else {"topic": topic, "offset": offset})

    return HTTPCall("update_scanner", "vulnerability-detector", prepare, nothing, repeatable=False, as_bytes=True)


# --- inventory sync ---


def _inventory(release: Release) -> None:
    only_in(release, "G", "G", "inventory sync over HTTP")


def inventory_metrics() -> HTTPCall[dict[str, Any]]:
    """The metrics of inventory sync, which are answered however busy it is. 5.0.0 and later."""

    def prepare(release: Release) -> HTTPRequest:
        _inventory(release)
        return get("/metrics")

    return HTTPCall("inventory_metrics", "inventory-sync", prepare, as_object)


def inventory_stateful(agent_id: int | str, message: bytes) -> HTTPCall[dict[str, Any]]:
    """A stateful message of an agent, in FlatBuffers as the agent sent it. ``{"status": "ok"}``, with ``noop`` where
    nothing changed; ``HTTPStatusError`` 409 with ``checksum_mismatch`` or ``version_mismatch``. Never sent twice."""
    header = agent_header(agent_id)
    if not isinstance(message, bytes) or not message:
        raise MessageInvalid(1012, "a stateful message is bytes, at least one")

    def prepare(release: Release) -> HTTPRequest:
        _inventory(release)
        return HTTPRequest("POST", "/stateful", (("Content-Type", "application/octet-stream"), header), message)

    return HTTPCall("inventory_stateful", "inventory-sync", prepare, as_object, repeatable=False)


def delete_inventory(agent_id: int | str) -> HTTPCall[dict[str, Any]]:
    """Have everything that is stored of an agent deleted. authd does so by itself when it removes an agent. May be
    repeated."""
    header = agent_header(agent_id)

    def prepare(release: Release) -> HTTPRequest:
        _inventory(release)
        return HTTPRequest("POST", "/agents/delete", (header,), b"")

    return HTTPCall("delete_inventory", "inventory-sync", prepare, as_object)


# --- remoted's admin socket ---


def remoted_metrics() -> HTTPCall[dict[str, Any]]:
    """``name``, ``timestamp`` and ``metrics``, each with its name, type, value and unit. The socket is optional: that
    it is missing doesn't say that remoted is down. 5.0.0 and later."""

    def prepare(release: Release) -> HTTPRequest:
        only_in(release, "G", "G", "remoted's admin socket")
        return get("/metrics")

    return HTTPCall("remoted_metrics", "remoted-admin", prepare, as_object)


def service_status(service: Literal["inventory-sync", "remoted-admin", "vulnerability-detector"]) -> HTTPCall[Any]:
    """What ``GET /`` says: that the service lives. 5.0.0 and later."""

    def prepare(release: Release) -> HTTPRequest:
        only_in(release, "G", "G", f"the status of {service}")
        return get("/")

    return HTTPCall("service_status", service, prepare, lambda answer: answer)
