"""A real OpenSearch with its security plugin: TLS, passwords, client certificates, rights."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme
import yaml
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.indexer.cluster import SECURED, START_LIMIT, Node, nodes

#: What docs/indexer.md gives to who copies it: the tests use no other rights.
ROLES = re.compile(r"<!-- roles.yml -->\s*```yaml\n(.*?)```", re.DOTALL)
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "indexer.md"

#: User -> password and its hash, as `org.opensearch.security.tools.Hasher -p ...` makes it.
USERS = {
    "daemon": ("comms-password", "$2y$12$wac5r8bVXudiBQM/81SPEeIGPseAlZyAdGIzs5lo3iKL14sWGJZma"),
    "setup": ("setup-password", "$2y$12$amYDh5j00SLlfJF9hnkaDO4KjS7B/xhav4umW5Vs2YJ5B/DySmrz6"),
    "limited": ("limited-password", "$2y$12$lmI97RrA0rfZYiIVbYDVV.UC78T/J0hYNNlfkUi3moFB94pPYiKN."),
}
#: A user of this name proves itself by a certificate alone.
CERTIFIED = "daemon-with-certificate"

#: All that the daemon needs, but for the index `wazuh-states-sca` and refreshing.
LIMITED = {
    "cluster_permissions": ["cluster_composite_ops", "cluster_monitor"],
    "index_permissions": [
        {
            "index_patterns": ["wazuh-agents", "wazuh-commands", "wazuh-states-fim"],
            "allowed_actions": ["crud", "create_index", "indices:admin/get", "indices:monitor/settings/get"],
        }
    ],
}

AUTHENTICATION = {
    "dynamic": {
        "http": {"anonymous_auth_enabled": False},
        "authc": {
            "certificates": {
                "http_enabled": True,
                "order": 0,
                "http_authenticator": {
                    "type": "clientcert",
                    "config": {"username_attribute": "cn"},
                    "challenge": False,
                },
                "authentication_backend": {"type": "noop"},
            },
            "passwords": {
                "http_enabled": True,
                "order": 1,
                "http_authenticator": {"type": "basic", "challenge": True},
                "authentication_backend": {"type": "intern"},
            },
        },
    }
}


@frozen
class Leaf:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path
    subject: str


class Pki:
    """The node's certificate is for ``localhost`` alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.node = self.issue("node", "localhost")
        self.admin = self.issue("admin")
        self.client = self.issue(CERTIFIED)
        self.stranger = self.issue("stranger")

    def issue(self, common_name: str, *names: str) -> Leaf:
        """The plugin reads keys of one form only."""
        made = self.authority.issue_cert(*(names or (f"{common_name}.example",)), common_name=common_name)
        certificate, key = self.folder / f"{common_name}.pem", self.folder / f"{common_name}-key.pem"
        made.cert_chain_pems[0].write_to_path(certificate)
        private = load_pem_private_key(made.private_key_pem.bytes(), None)
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        parsed = x509.load_pem_x509_certificate(made.cert_chain_pems[0].bytes())
        return Leaf(certificate, key, parsed.subject.rfc4514_string())


def documented_roles() -> Mapping[str, Any]:
    match = ROLES.search(DOCUMENTATION.read_text())
    assert match is not None
    return dict(yaml.safe_load(match[1]))


def node_settings(pki: Pki, *, certificates: str) -> dict[str, str]:
    """``certificates``: OPTIONAL or REQUIRE."""
    made = {
        "ssl.transport.enforce_hostname_verification": "false",
        "ssl.http.enabled": "true",
        "ssl.http.clientauth_mode": certificates,
        "authcz.admin_dn": json.dumps([pki.admin.subject]),
        "nodes_dn": json.dumps([pki.node.subject]),
        "allow_default_init_securityindex": "true",
        "restapi.admin.enabled": "true",
    }
    for layer in ("transport", "http"):
        made[f"ssl.{layer}.pemcert_filepath"] = "certificates/node.pem"
        made[f"ssl.{layer}.pemkey_filepath"] = "certificates/node-key.pem"
        made[f"ssl.{layer}.pemtrustedcas_filepath"] = "certificates/ca.pem"
    return {
        "discovery.type": "single-node",
        "network.host": "127.0.0.1",
        "action.destructive_requires_name": "false",
        **{f"plugins.security.{name}": value for name, value in made.items()},
    }


def write_rules(folder: Path) -> None:
    """What the node reads once, when it makes its index of them."""
    folder.mkdir()
    users = {name: {"hash": hashed} for name, (_, hashed) in USERS.items()}
    mapping = {
        "wazuh_comms": {"users": ["daemon", CERTIFIED]},
        "wazuh_comms_setup": {"users": ["setup"]},
        "limited": {"users": ["limited"]},
    }
    kinds: Mapping[str, tuple[str, Mapping[str, Any]]] = {
        "config": ("config", {"config": AUTHENTICATION}),
        "internal_users": ("internalusers", users),
        "roles": ("roles", {**documented_roles(), "limited": LIMITED}),
        "roles_mapping": ("rolesmapping", mapping),
        "action_groups": ("actiongroups", {}),
        "tenants": ("tenants", {}),
        "nodes_dn": ("nodesdn", {}),
        "allowlist": ("allowlist", {"config": {"enabled": False}}),
        "audit": ("audit", {"config": {"enabled": False}}),
    }
    for name, (kind, content) in kinds.items():
        rules = {"_meta": {"type": kind, "config_version": 2}, **content}
        (folder / f"{name}.yml").write_text(yaml.safe_dump(rules))


@frozen
class SecuredNode:
    node: Node
    pki: Pki

    @property
    def port(self) -> int:
        return self.node.port

    def call(self, method: str, target: str, body: Any = None, *, below: int = 500, leaf: Leaf | None = None) -> Any:
        """A request of the test's own, by default as the administrator, who may do everything. The answer's status must
        be ``below``."""
        leaf = leaf or self.pki.admin
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        context.load_cert_chain(leaf.certificate, leaf.key)
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=60, context=context)
        try:
            encoded = None if body is None else json.dumps(body).encode()
            connection.request(method, target, encoded, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            content = reply.read()
            assert reply.status < below, (reply.status, content)
            return json.loads(content) if content else None
        finally:
            connection.close()

    def wipe(self) -> None:
        self.call("DELETE", "/wazuh-*?expand_wildcards=all", below=400)
        self.call("DELETE", "/_index_template/*", below=405)

    def wait_initialized(self) -> None:
        """Until the plugin has its rules: the administrator needs none, others get 503 so long."""
        limit = time.monotonic() + START_LIMIT
        while time.monotonic() < limit:
            try:
                self.call("GET", "/", leaf=self.pki.client, below=300)
            except (AssertionError, OSError):
                time.sleep(0.05)
            else:
                return
        raise RuntimeError("the security plugin wasn't initialized")


@contextmanager
def secured_node() -> Iterator[SecuredNode]:
    """Gone with its data at the end."""
    made: list[Pki] = []

    def prepare(node: Node) -> None:
        made.append(Pki(node.conf / "certificates"))
        write_rules(node.conf / "opensearch-security")
        node.configure(node_settings(made[0], certificates="OPTIONAL"))

    with nodes(1, build=SECURED, heap="384m", prepare=prepare) as (node,):
        secured = SecuredNode(node, made[0])
        secured.wait_initialized()
        yield secured
