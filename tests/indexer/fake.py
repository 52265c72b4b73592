"""A fake OpenSearch, in memory, for the mock clock and for faults on demand. It passes the same contract suite as the
real one; where it answers, it answers as the real one does."""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import trio
import trio.testing
from attrs import define

from tests.indexer.fake_bodies import (
    Answer,
    Unsortable,
    error,
    failure,
    read_bulk,
    sort_hits,
    stored_body,
    with_source,
    without_source,
)
from tests.indexer.fake_index import Conflict, Index, Malformed, Missing, parse


@define
class Faults:
    """``before``: awaited with each request before it is looked at. ``whole``: an answer instead of doing what is
    asked, or None. ``false_conflicts``: how many conditional writes and creates yet are done and reported as 409, as
    the real one does when a node goes. ``busy_items``: how many items yet are refused with 429. ``largest``: bytes of
    a body; above it 413. ``most``: bytes above which a bulk call gets 429. ``cut``: so many bytes of each answer, then
    the end. ``lost``: how many answers yet are done and never sent. ``malformed``: whether a document, or a part of
    one, can't be mapped."""

    before: Callable[[str, str], Awaitable[None]] | None = None
    whole: Callable[[str, str], Answer | None] = lambda method, path: None
    false_conflicts: int = 0
    busy_items: int = 0
    largest: int = 100 * 1024 * 1024
    most: int = 100 * 1024 * 1024
    cut: int | None = None
    lost: int = 0
    malformed: Callable[[dict[str, Any]], bool] = lambda source: False


class FakeOpenSearch:
    """``requests``: method and path of each. ``bulks``: for each bulk call the items' ids. ``reads``: for each call of
    ``_mget`` the documents whose content is asked for. ``searches``: each one's body. ``headers`` of the last.
    ``unlimited``: writes that leave it to the indexer how long a shard is waited for."""

    def __init__(self, nursery: trio.Nursery, now: Callable[[], float] = trio.current_time) -> None:
        self.indices: dict[str, Index] = {}
        self.templates: dict[str, Any] = {}
        self.default_mappings: Mapping[str, Any] = {}
        self.refresh_interval = 1.0
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []
        self.bulks: list[list[str]] = []
        self.reads: list[int] = []
        self.headers: dict[str, str] = {}
        self.bodies: list[int] = []
        self.searches: list[Mapping[str, Any]] = []
        self.unlimited: list[tuple[str, str]] = []
        self.accepted = 0
        self.up = True
        self._nursery = nursery
        self._now = now
        self._scopes: set[trio.CancelScope] = set()
        self._scrolls: dict[str, list[Any]] = {}

    # --- connections ---

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """The client's seam."""
        await trio.lowlevel.checkpoint()
        if not self.up:
            raise OSError(111, "Connection refused")
        self.accepted += 1
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, ours)
        return theirs

    def go_down(self) -> None:
        """As a process that was killed."""
        self.up = False
        for scope in self._scopes:
            scope.cancel()

    async def serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        """A connection over a network."""
        if self.up:
            await self._serve(stream)
        else:
            await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        connection = self._new_connection()
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                while await self._exchange(stream, connection):
                    connection.start_next_cycle()
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
                pass
        self._scopes.discard(scope)
        await trio.aclose_forcefully(stream)

    def _new_connection(self) -> Any:
        """What reads requests, with h11's methods, of one connection."""
        return h11.Connection(h11.SERVER)

    def _encode(self, connection: Any, status: int, body: bytes) -> bytes:
        """A whole answer."""
        head = h11.Response(status_code=status, headers=[("Content-Length", str(len(body)))])
        sent = [head, h11.Data(data=body), h11.EndOfMessage()]
        return b"".join(connection.send(event) or b"" for event in sent)

    async def _exchange(self, stream: trio.abc.HalfCloseableStream, connection: Any) -> bool:
        request: h11.Request | None = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert request is not None
        self.headers = {name.decode(): value.decode() for name, value in request.headers}
        self.bodies.append(len(body))
        content = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else bytes(body)
        method, target = request.method.decode(), request.target.decode()
        status, answer = await self._answer(method, target, content)
        if self.faults.lost:
            self.faults.lost -= 1
            return False
        encoded = b"" if answer is None or method == "HEAD" else json.dumps(answer).encode()
        if isinstance(answer, str) and method != "HEAD":
            encoded = answer.encode()
        data = self._encode(connection, status, encoded)
        if self.faults.cut is not None:
            await stream.send_all(data[: self.faults.cut])
            return False
        await self._send(stream, data)
        return True

    async def _send(self, stream: trio.abc.HalfCloseableStream, answer: bytes) -> None:
        """Sends a whole answer."""
        await stream.send_all(answer)

    async def _answer(self, method: str, target: str, body: bytes) -> Answer:
        url = urlsplit(target)
        parts = [unquote(part) for part in url.path.split("/")[1:]]
        self.requests.append((method, url.path))
        if "timeout=" not in url.query and is_write(method, parts):
            self.unlimited.append((method, url.path))
        if self.faults.before is not None:
            await self.faults.before(method, url.path)
        if (whole := self.faults.whole(method, url.path)) is not None:
            return whole
        if len(body) > self.faults.largest:
            return 413, None
        return self._do(method, parts, dict(parse_qsl(url.query)), body)

    # --- what is asked ---

    def index(self, name: str) -> Index:
        """Made where it is missing, as the first document does."""
        if name not in self.indices:
            made = Index(name, self._now, self.default_mappings, self.refresh_interval)
            self.indices[name] = made
        return self.indices[name]

    def _do(self, method: str, parts: list[str], query: Mapping[str, str], body: bytes) -> Answer:
        match method, parts:
            case "GET", [""]:
                return 200, {"version": {"distribution": "opensearch", "number": "2.18.0"}}
            case "POST", ["_bulk"]:
                return self._bulk(body)
            case "POST", ["_mget"]:
                asked = json.loads(body)["docs"]
                docs = [self._found(each["_index"], each["_id"]) for each in asked]
                unread = [each.get("_source") is False for each in asked]
                self.reads.append(unread.count(False))
                docs = [without_source(doc) if left else doc for doc, left in zip(docs, unread, strict=True)]
                return 200, {"docs": docs}
            case "POST", ["_search", "scroll"]:
                return self._page(json.loads(body)["scroll_id"])
            case "DELETE", ["_search", "scroll"]:
                for scroll_id in json.loads(body)["scroll_id"]:
                    self._scrolls.pop(scroll_id, None)
                return 200, {}
            case "GET", ["_index_template"]:
                listed = [{"name": name, "index_template": each} for name, each in self.templates.items()]
                return 200, {"index_templates": listed}
            case "GET", ["_template"]:
                return 200, {}
            case "HEAD", ["_index_template", name]:
                return (200 if name in self.templates else 404), None
            case "PUT", ["_index_template", name]:
                self.templates[name] = json.loads(body)
                return 200, {"acknowledged": True}
            case "PUT", [name]:
                if name in self.indices:
                    return error(400, "resource_already_exists_exception", f"index [{name}] already exists")
                self.indices[name] = Index(name, self._now, json.loads(body).get("mappings", {}), self.refresh_interval)
                return 200, {"acknowledged": True}
            case "HEAD", [name]:
                return (200 if name in self.indices else 404), None
        return self._do_in(self.indices.get(parts[0]), method, parts, query, body)

    def _do_in(
        self, index: Index | None, method: str, parts: list[str], query: Mapping[str, str], body: bytes
    ) -> Answer:
        if index is None:
            return error(404, "index_not_found_exception", f"no such index [{parts[0]}]")
        match method, parts[1:]:
            case "POST", ["_mget"]:
                docs = [self._found(index.name, each) for each in json.loads(body)["ids"]]  # one shard: no other places
                if "_source_includes" in query:
                    docs = [with_source(each, query["_source_includes"].split(",")) for each in docs]
                return 200, {"docs": docs}
            case "POST", ["_refresh"]:
                index.refresh()
                return 200, {}
            case "GET", ["_settings", "index.number_of_shards"]:
                return 200, {index.name: {"settings": {"index.number_of_shards": "1"}}}
            case "GET", ["_field_caps"]:
                return 200, {"fields": {}}
            case "POST", ["_search"]:
                return self._search(index, json.loads(body), "scroll" in query)
            case "GET", ["_doc", document_id]:
                found = self._found(index.name, document_id)
                if "error" in found:
                    return 503, {"error": found["error"], "status": 503}
                return (200 if found["found"] else 404), found
        action = {"_create": "create", "_update": "update", "_doc": "delete"}[parts[1]]
        source = body if action == "create" else None
        asked = json.loads(body) if action == "update" else {}
        partial = asked.get("doc")
        if asked.get("doc_as_upsert") and parts[2] not in index.documents:
            action, source, partial = "create", json.dumps(partial).encode(), None
        item = self._item(action, {"_index": index.name, "_id": parts[2]}, source, partial)
        if "error" in item:
            return item["status"], {"error": item["error"], "status": item["status"]}
        if query.get("refresh") == "true":
            index.refresh()
        return item["status"], item

    def _found(self, name: str, document_id: str) -> dict[str, Any]:
        index = self.indices.get(name)
        about: dict[str, Any] = {"_index": name, "_id": document_id}
        if index is None:
            return {**about, "error": {"type": "index_not_found_exception", "reason": f"no such index [{name}]"}}
        stored = index.documents.get(document_id)
        if stored is None:
            return {**about, "found": False}
        return {**about, "found": True, **stored_body(stored)}

    # --- searches ---

    def _search(self, index: Index, body: Mapping[str, Any], scroll: bool) -> Answer:
        self.searches.append(body)
        found = index.search(body["query"])
        total = len(found)
        try:
            sorts = sort_hits(index, found, body.get("sort", []), body.get("search_after"))
        except Unsortable as exc:
            return error(400, "illegal_argument_exception", str(exc))
        hits = [{"_index": index.name, "_id": i, **stored_body(stored)} for i, stored in found]
        match body.get("_source"):
            case False:
                hits = [{name: value for name, value in hit.items() if name != "_source"} for hit in hits]
            case list(fields):
                hits = [with_source(hit, fields) for hit in hits]
        size = body.get("size", 10)
        if "sort" in body and not scroll:
            for hit, values in zip(hits, sorts, strict=True):
                hit["sort"] = values
        if scroll:
            scroll_id = f"scroll-{len(self.requests)}"
            self._scrolls[scroll_id] = [hits[start : start + size] for start in range(0, len(hits), size)]
            return self._page(scroll_id)
        return 200, {
            "_shards": {"total": 1, "successful": 1},
            "hits": {"total": {"value": total}, "hits": hits[:size]},
        }

    def _page(self, scroll_id: str) -> Answer:
        pages = self._scrolls[scroll_id]
        hits = pages.pop(0) if pages else []
        return 200, {"_scroll_id": scroll_id, "_shards": {"total": 1, "successful": 1}, "hits": {"hits": hits}}

    # --- bulk ---

    def _bulk(self, body: bytes) -> Answer:
        if not body.endswith(b"\n"):
            return error(400, "illegal_argument_exception", "The bulk request must be terminated by a newline [\\n]")
        if len(body) > self.faults.most:
            return error(429, "circuit_breaking_exception", "[parent] Data too large")
        try:
            calls = list(read_bulk(body))
        except (ValueError, Malformed, Missing) as exc:
            return error(400, "illegal_argument_exception", str(exc))
        self.bulks.append([about["_id"] for _, about, _, _ in calls])
        items = [{action: self._item(action, about, source, doc)} for action, about, source, doc in calls]
        return 200, {"errors": any("error" in each for item in items for each in item.values()), "items": items}

    def _item(
        self, action: str, about: Mapping[str, Any], source: bytes | None, partial: dict[str, Any] | None
    ) -> dict[str, Any]:
        name, document_id = about["_index"], about["_id"]
        refused = self._refuse(name, action)
        if refused is not None:
            return refused
        index = self.index(name)
        try:
            done = self._write(index, action, document_id, source, partial, about.get("if_seq_no"))
        except Conflict as exc:
            return failure(409, "version_conflict_engine_exception", str(exc))
        except Missing as exc:
            return failure(404, "document_missing_exception", str(exc))
        except Malformed as exc:
            return failure(400, "mapper_parsing_exception", str(exc))
        conditional = action == "create" or about.get("if_seq_no") is not None
        if self.faults.false_conflicts and conditional and done["result"] != "noop":
            self.faults.false_conflicts -= 1
            already = f"[{document_id}]: version conflict, document already exists (current version [1])"
            return failure(
                409, "version_conflict_engine_exception", already if action == "create" else "required seqNo"
            )
        return done

    def _refuse(self, name: str, action: str) -> dict[str, Any] | None:
        index = self.indices.get(name)
        if self.faults.busy_items:
            self.faults.busy_items -= 1
            return failure(429, "rejected_execution_exception", "rejected execution")
        if index is None:
            return None
        if index.closed:
            return failure(400, "index_closed_exception", "closed")
        if index.block == "write":
            return failure(
                403, "cluster_block_exception", f"index [{name}] blocked by: [FORBIDDEN/8/index write (api)];"
            )
        if index.block == "read_only_allow_delete":
            return failure(
                429, "cluster_block_exception", f"index [{name}] blocked by: [TOO_MANY_REQUESTS/12/disk usage];"
            )
        return None

    def _write(
        self,
        index: Index,
        action: str,
        document_id: str,
        source: bytes | None,
        partial: dict[str, Any] | None,
        if_seq_no: int | None,
    ) -> dict[str, Any]:
        if if_seq_no is not None and action in ("delete", "index"):
            index.check(document_id, if_seq_no)
        if action == "delete":
            there = index.delete(document_id)
            return {"status": 200 if there else 404, "result": "deleted" if there else "not_found"}
        if action == "update" and source is not None and document_id not in index.documents:
            action = "create"  # an upsert
        if action == "update":
            assert partial is not None
            if document_id in index.documents and self.faults.malformed(partial):
                raise Malformed("failed to parse field [bad]")
            result, stored = index.update(document_id, partial, if_seq_no)
        elif source is not None and self.faults.malformed(parse(source)):
            raise Malformed("failed to parse field [bad]")
        elif action == "index":
            assert source is not None
            result, stored = "updated", index.write(document_id, source)
        else:
            assert source is not None
            result, stored = "created", index.create(document_id, source)
        status = 201 if result == "created" else 200
        return {"status": status, "result": result, "_seq_no": stored.seq_no, "_primary_term": 1}


def is_write(method: str, parts: Sequence[str]) -> bool:
    """Whether a request changes documents, and so waits for their shards."""
    return parts[-1] == "_bulk" or (len(parts) == 3 and (parts[1] in ("_create", "_update") or method == "DELETE"))
