"""The security plugin of a real OpenSearch: TLS, passwords, client certificates, rights. Where no Java is new enough
for it, ``test_tls`` and a proxy are what there is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme

from tests.conftest import Certificates
from tests.e2e.processes import PROGRAMS, Files, start_daemon, tool
from tests.engine.fake import fake_engine
from tests.indexer.cluster import SECURED
from tests.indexer.daemons import wazuh_files
from tests.indexer.harness import settings
from tests.indexer.secured import CERTIFIED, USERS, Leaf, SecuredNode, node_settings, secured_node
from wazuh_comms_trio.backends.interfaces import Action, Command, DocumentOperation, ItemResult, Outcome, Target
from wazuh_comms_trio.backends.opensearch.admin.check import Finding, check_indexer
from wazuh_comms_trio.backends.opensearch.admin.init import init_indexer
from wazuh_comms_trio.backends.opensearch.client.client import IndexerUnavailable, OpenSearchClient
from wazuh_comms_trio.backends.opensearch.stores import OpenSearchStores, open_opensearch
from wazuh_comms_trio.config.backend_models import Indexer, IndexerHost, IndexerNames, IndexerSsl
from wazuh_comms_trio.errors import BackendUnavailable
from wazuh_comms_trio.testing import Reply, stateful_event, stateless_event

pytestmark = [pytest.mark.indexer, pytest.mark.processes, pytest.mark.real_clock]

if SECURED.folder.is_dir() and SECURED.java() is None:
    pytest.skip("no Java of 21 or newer was found", allow_module_level=True)


@pytest.fixture(scope="module")
def made() -> Iterator[SecuredNode]:
    with secured_node() as node:
        yield node


@pytest.fixture
def node(made: SecuredNode) -> SecuredNode:
    made.wipe()
    return made


def reach(node: SecuredNode, user: str | None = "daemon", *, host: str = "localhost", **more: Any) -> Indexer:
    """Settings with the user's password and the right CA; ``more``: other settings, those of ``ssl`` as a mapping."""
    tls = {"use_ssl": True, "certificate_authorities": (node.pki.ca,)} | more.pop("ssl", {})
    account = {"username": user, "password": USERS[user][0]} if user is not None and user in USERS else {}
    made = settings(node.port, ssl=IndexerSsl(**tls), **(account | more))
    return attrs.evolve(made, hosts=(IndexerHost(host, node.port),))


def with_certificate(leaf: Leaf) -> dict[str, Any]:
    return {"certificate": leaf.certificate, "key": leaf.key}


async def version(indexer: Indexer) -> str:
    async with OpenSearchClient(indexer) as client:
        return str((await client.json("GET", "/"))["version"]["number"])


async def check(indexer: Indexer) -> list[Finding]:
    return [finding async for finding in check_indexer(indexer)]


def lines(findings: list[Finding]) -> list[str]:
    """Of what isn't well."""
    return [f"{f.level} {f.what}: {f.text} -> {f.remedy}" for f in findings if f.level != "ok"]


async def failure(indexer: Indexer) -> str:
    """What the client says, and what to do about it."""
    with pytest.raises(IndexerUnavailable) as caught:
        await version(indexer)
    (line,) = [line for line in lines(await check(indexer)) if "connection" in line]
    assert line.startswith("problem")
    assert str(caught.value) in line
    return line


def create(document_id: str, index: str = "wazuh-states-fim", **data: Any) -> DocumentOperation:
    return DocumentOperation("create", index, document_id, b'{"n":%d}' % data.get("n", 1))


async def one(stores: OpenSearchStores, operation: DocumentOperation) -> ItemResult:
    (result,) = await stores.events.bulk([operation])
    return result


# --- who the node is ---


async def test_the_ca_in_a_file_or_a_bundle(node: SecuredNode) -> None:
    for tls in (
        {"certificate_authorities": (node.pki.ca,)},
        {"certificate_authorities": (), "certificate_authorities_bundle": node.pki.ca},
    ):
        assert (await version(reach(node, ssl=tls))).startswith("3.")


async def test_a_certificate_of_somebody_else(node: SecuredNode, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    line = await failure(reach(node, ssl={"certificate_authorities": (other,)}))
    assert "certificate is not accepted: unable to get local issuer" in line
    assert "certificate_authorities must name the CA" in line
    assert "certificate is not accepted" in await failure(reach(node, ssl={"certificate_authorities": ()}))


async def test_a_certificate_for_another_name(node: SecuredNode) -> None:
    assert "IP address mismatch" in await failure(reach(node, host="127.0.0.1"))
    unverified = reach(node, host="127.0.0.1", ssl={"certificate_authorities": (), "verify_certificates": False})
    assert (await version(unverified)).startswith("3.")
    assert any("certificates: are not verified" in line for line in lines(await check(unverified)))


async def test_without_tls(node: SecuredNode) -> None:
    plain = attrs.evolve(reach(node), ssl=IndexerSsl())
    assert "does it expect TLS" in await failure(plain)


# --- who we are ---


@pytest.mark.parametrize("user", ["daemon", "nobody", None])
async def test_a_wrong_account(node: SecuredNode, user: str | None) -> None:
    indexer = reach(node, None, username=user, password="wrong") if user else reach(node, None)  # noqa: S106
    line = await failure(indexer)
    assert "401 (Unauthorized)" in line  # the plugin's text, which is no JSON
    assert "check indexer.username and indexer.password" in line
    async with open_opensearch(indexer) as stores:
        with pytest.raises(BackendUnavailable):
            await one(stores, create("1"))
        with pytest.raises(BackendUnavailable):
            await stores.agents.get("0194857f-39b5-7bfb-a7bc-c5c6835f03d1")
    assert node.call("GET", "/wazuh-states-fim", below=405)["status"] == 404


async def test_a_password_that_is_changed(node: SecuredNode, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "password"
    file.write_text("wrong-password\n")
    async with open_opensearch(reach(node, None, username="daemon", password_file=file)) as stores:
        with pytest.raises(BackendUnavailable):
            await one(stores, create("1"))
        file.write_text(USERS["daemon"][0])
        assert (await one(stores, create("1"))).status == 201  # at once: the file is looked at
        try:
            path = "/_plugins/_security/api/internalusers/daemon"
            node.call("PUT", path, {"password": "Another-Passw0rd-of-theirs"}, below=300)
            with pytest.raises(BackendUnavailable):
                await one(stores, create("2"))
            file.write_text("Another-Passw0rd-of-theirs\n")
            assert (await one(stores, create("2"))).status == 201
        finally:
            node.call("PUT", path, {"hash": USERS["daemon"][1]}, below=300)
        with pytest.raises(BackendUnavailable):
            await one(stores, create("3"))
        file.write_text(USERS["daemon"][0])
        assert (await one(stores, create("3"))).status == 201
    assert caplog.text.count("account: refused") == 3
    assert caplog.text.count("account: works again") == 3
    assert "assw" not in caplog.text.replace("password file", "")


async def test_a_client_certificate_in_place_of_a_password(node: SecuredNode) -> None:
    indexer = reach(node, CERTIFIED, ssl=with_certificate(node.pki.client))
    assert indexer.username is None
    async with OpenSearchClient(reach(node, "setup")) as client:
        await init_indexer(client, IndexerNames())
    assert lines(await check(indexer)) == []
    async with open_opensearch(indexer) as stores:
        assert (await one(stores, create("1"))).status == 201


async def test_a_client_certificate_that_nobody_knows(node: SecuredNode) -> None:
    line = await failure_of_check(reach(node, None, ssl=with_certificate(node.pki.stranger)))
    assert "403 (security_exception: no permissions" in line
    assert "give the account the right" in line


async def failure_of_check(indexer: Indexer) -> str:
    (line,) = lines(await check(indexer))
    return line


# --- what we may do ---


async def test_the_documented_rights_are_enough(node: SecuredNode) -> None:
    """For ``init`` and ``check`` each; the daemon's are those of ``test_a_whole_daemon``."""
    (*_, last) = lines(await check(reach(node)))
    assert "state indices: 10 of 10 are missing, and whether there is a template" in last
    async with OpenSearchClient(reach(node)) as client:
        with pytest.raises(IndexerUnavailable, match="403"):
            await init_indexer(client, IndexerNames())
    async with OpenSearchClient(reach(node, "setup")) as client:
        assert all(step.made for step in await init_indexer(client, IndexerNames()))
    assert lines(await check(reach(node))) == []


async def test_a_right_that_is_missing(node: SecuredNode, caplog: pytest.LogCaptureFixture) -> None:
    """It is a failure that may pass, of those items alone that it is about."""
    async with OpenSearchClient(reach(node, "setup")) as client:
        await init_indexer(client, IndexerNames())
    caplog.set_level(logging.INFO)
    forbidden = "wazuh-states-sca"
    async with open_opensearch(reach(node, "limited")) as stores:
        results = await stores.events.bulk([create("1"), create("1", forbidden), create("2")])
        assert [(result.status, result.outcome) for result in results] == [
            (201, Outcome.DONE),
            (403, Outcome.PASSING),
            (201, Outcome.DONE),
        ]
        assert "no permissions" in results[1].result
        assert await stores.agents.members("all") == []  # searched without the right to refresh
        assert "no right to refresh wazuh-agents" in caplog.text
    found = "\n".join(lines(await check(reach(node, "limited"))))
    assert f"problem state indices: {forbidden}: no right to see it -> give the account the right" in found
    assert "warning agents index: wazuh-agents: no refresh" in found
    assert "warning agents index: wazuh-agents: settings and mapping can't be looked at" in found
    assert (
        "warning presence index: wazuh-comms-presence: no right to see it: agents' status follows their log-ins"
        in found
    )
    assert "problem agents index" not in found
    assert "problem commands index" not in found


async def test_commands_without_the_right_to_refresh(node: SecuredNode) -> None:
    """What was written here is known here, although no search shows it yet."""
    agent_id = "0194857f-39b5-7bfb-a7bc-c5c6835f03d1"
    node.call("PUT", "/wazuh-commands", {"settings": {"index": {"refresh_interval": "600s"}}}, below=300)
    async with open_opensearch(reach(node, "limited")) as stores:
        await stores.commands.add([Command("c", Target("agent", agent_id), Action("restart"))])
        with trio.fail_after(10):
            assert agent_id in await stores.commands.wait_news()
        await trio.sleep(1)  # several looks, and none shows it
        (claimed,) = await stores.commands.claim([agent_id])
        await stores.commands.mark_sent([claimed.document_id])
        stored = await stores.commands.get("c")
        assert stored is not None
        assert stored.status == "sent"


async def test_names_that_are_not_ours_to_look_at(node: SecuredNode) -> None:
    """With both names of an index free to choose, the account may know one of them only."""
    node.call("PUT", "/.commands", {}, below=300)
    try:
        async with open_opensearch(reach(node, "limited")) as stores:
            with pytest.raises(BackendUnavailable):  # it isn't made anew beside one that may be there
                await stores.commands.get("c")
        node.call("PUT", "/wazuh-commands", {}, below=300)
        async with open_opensearch(reach(node, "limited")) as stores:
            assert await stores.commands.get("c") is None
    finally:
        node.call("DELETE", "/.commands", below=300)


# --- all of it ---


def indexer_yaml(node: SecuredNode, **more: Any) -> dict[str, Any]:
    tls = {"use_ssl": True, "certificate_authorities": [str(node.pki.ca)]}
    return {"hosts": [{"host": "localhost", "port": node.port}], "ssl": tls, **more}


async def run(files: Files, *arguments: str) -> tuple[int, str]:
    command = [str(PROGRAMS / "wazuh-comms"), "--config", str(files.config), *arguments]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    output = (done.stdout + done.stderr).decode()
    assert "Traceback" not in output
    assert not any(password in output for password, _ in USERS.values())
    return done.returncode, output


async def test_a_whole_daemon(tmp_path: Path, certificates: Certificates, node: SecuredNode) -> None:
    """On an empty indexer, with the rights of the documentation and a password that is mended while it runs."""
    password = tmp_path / "password"
    password.write_text("not-this-one\n")
    indexer = indexer_yaml(node, username="daemon", password_file=str(password))
    files = wazuh_files(tmp_path / "daemon", certificates, [node.port], indexer=indexer, timeouts={"stateful": 3})
    async with fake_engine(files.folder) as engine, start_daemon(files) as daemon:
        reply = await daemon.client("nobody", "key").request("GET", "/api/v1/ready", authorised=False)
        assert (reply.status, reply.json()["message"]) == (503, "index: it refuses our account")
        status, output = await run(files, "agents", "add", "early")
        assert status == 1
        status, output = await run(files, "indexer", "check")
        assert status == 1
        assert "401 (Unauthorized) -> check indexer.username and indexer.password" in output
        password.write_text(USERS["daemon"][0] + "\n")

        agent = await daemon.add_agent("a1", "--group", "web")
        with trio.fail_after(10):
            while (await agent.authenticate()).status != 200:  # noqa: ASYNC110  # nothing tells
                await trio.sleep(0.1)
        reply = await agent.post_stateful([stateful_event("e1", "fim", "create", {"file": {"path": "/etc/passwd"}})])
        assert [each["status"] for each in reply.json()["results"]] == [201]
        stored = node.call("GET", f"/wazuh-states-fim/_doc/{agent.uuid}_e1")["_source"]
        assert stored["file"] == {"path": "/etc/passwd"}
        assert (await agent.post_stateless([stateless_event("m", "c", {"n": 1})])).status == 204
        assert len(engine.requests) == 1

        polled: list[Reply] = []
        async with trio.open_nursery() as nursery:

            async def poll() -> None:
                polled.append(await agent.poll())

            nursery.start_soon(poll)
            command = {"status": "pending", "target": {"type": "group", "id": "web"}, "action": {"name": "restart"}}
            document = {"@timestamp": "2099-01-01T00:00:00.000Z", "command": {**command, "timeout": 100}}
            node.call("PUT", "/wazuh-commands/_doc/theirs", document, below=300)
        (command,) = polled[0].json()["commands"]
        assert (await agent.report(command["document_id"], 0, "done")).status == 200
        shown = node.call("GET", f"/wazuh-commands/_doc/{command['document_id']}")["_source"]["command"]
        assert (shown["status"], shown["result"]["code"]) == ("success", 0)

        assert (await agent.request("GET", "/api/v1/ready", authorised=False)).status == 200
        await tool(files, "agents", "remove", agent.uuid)
        assert node.call("GET", f"/wazuh-agents/_doc/{agent.uuid}")["found"] is False
        log = "\n".join(daemon.log)
    assert log.count("account: refused: the indexer answered 401") == 1
    assert log.count("account: works again") == 1
    assert not any(secret in log for secret in ("not-this-one", *(each for each, _ in USERS.values())))


# --- a node that asks for certificates: the last ones, they start it anew ---


@contextmanager
def restarted(node: SecuredNode, certificates: str) -> Iterator[None]:
    """Stopped; it is started when the block has ended."""
    node.node.stop()
    node.node.configure(node_settings(node.pki, certificates=certificates))
    node.node.begin(node.port)
    yield
    node.wait_initialized()


async def test_a_start_and_a_certificate_that_is_required(node: SecuredNode, caplog: pytest.LogCaptureFixture) -> None:
    """While the plugin reads its rules, everything is 503 and a text; afterwards the same client works. The node lets
    nobody in without a certificate then."""
    caplog.set_level(logging.INFO)
    indexer = reach(node, CERTIFIED, ssl=with_certificate(node.pki.client))
    seen: list[str] = []
    async with open_opensearch(indexer) as stores:
        assert (await one(stores, create("before"))).status == 201
        with restarted(node, "REQUIRE"):
            limit = time.monotonic() + 60
            while time.monotonic() < limit:
                try:
                    assert (await one(stores, create(f"after-{len(seen)}"))).status == 201
                    break
                except BackendUnavailable as exc:
                    seen.append(str(exc))
                    await trio.sleep(0.02)
        assert await stores.events.get("wazuh-states-fim", "before") == b'{"n":1}'
    assert any("503 (OpenSearch Security not initialized.)" in text for text in seen)
    assert any("Connection refused" in text for text in seen)

    line = await failure(reach(node))
    assert "TLS: tlsv13 alert certificate required" in line
    assert "set indexer.ssl.certificate and indexer.ssl.key" in line
    assert (await version(reach(node, ssl=with_certificate(node.pki.client)))).startswith("3.")
