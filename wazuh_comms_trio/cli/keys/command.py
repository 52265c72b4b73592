"""``wazuh-comms keys``: its parsers, and the list."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Final

from wazuh_comms_trio.cli.parser import Group

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_FORCE_HELP: Final = "although a node may not trust the key yet, or that can't be known"


def add_parser(parent: Group) -> None:
    keys = parent.group("keys", help="the keys that sign agents' tokens: list, change in two steps, revoke")
    keys.command(
        "list",
        _list,
        help="this node's keys, and with an indexer what the other nodes sign with and which keys they trust",
    )
    rotate = keys.group("rotate", help="change the key: `publish` on every node first, then `sign` on every node")
    publish = rotate.command(
        "publish",
        _publish,
        help="have this node trust the next key; without --key a new one is made",
        description="Puts the next key beside the one that signs, as FILE.next, and has the daemon trust its tokens. Do"
        " it on every node, with the same key, before any node signs with it.",
    )
    publish.add_argument("--key", metavar="FILE", help="the next private key, PEM, as another node made it")
    sign = rotate.command(
        "sign",
        _sign,
        help="have this node sign with the next key, once all nodes trust it",
        description="The next key takes the place of the one that signs, whose tokens stay good for a day, so that the"
        " other nodes can follow.",
    )
    sign.add_argument("--force", action="store_true", help=_FORCE_HELP)
    revoke = keys.command(
        "revoke",
        _revoke,
        help="end a key's tokens at once, on this node and with an indexer on all; their agents log in again",
        description="Nothing that the key signed is good any more. The agents with such a token log in again, all at"
        " once: nothing spreads that. With an indexer the other nodes follow within seconds; else run it on each.",
    )
    revoke.add_argument("key", metavar="KEY", type=_key_id, help="the key's id, as `keys list` shows it")


def _key_id(text: str) -> str:
    from wazuh_comms_trio.services.authentication.tokens import KEY_ID

    if KEY_ID.fullmatch(text) is None:
        raise ArgumentTypeError("expected a key's id, 43 letters, digits, - and _, as `keys list` shows it")
    return text


async def _publish(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.keys.rotation import publish

    return await publish(arguments)


async def _sign(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.keys.rotation import sign

    return await sign(arguments)


async def _revoke(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.keys.revocation import revoke

    return await revoke(arguments)


async def _list(arguments: Namespace) -> int:
    from wazuh_comms_trio.cli.keys.node import keys_in_force, nodes_keys, own_keys
    from wazuh_comms_trio.cli.output import Output, lines, table
    from wazuh_comms_trio.cli.program import Failure
    from wazuh_comms_trio.cli.stores import open_session

    session = open_session(arguments)
    own = own_keys(session)
    notes: list[str] = []
    in_force = keys_in_force(arguments)
    rows: list[Mapping[str, Any]] = [key.document(in_force) for key in own]
    known = {row["key"] for row in rows}
    if in_force is not None:
        rows += [{"key": key, "use": "trusted", "in_force": True} for key in in_force.accepted if key not in known]
    else:
        notes.append("The daemon doesn't run: what its files say.")
    if any(row["in_force"] is False for row in rows):
        notes.append("What isn't in force yet is after `wazuh-comms reload`; with one worker after a restart.")
    nodes: list[Mapping[str, Any]] = []
    if session.config.communications_api.backend == "wazuh":
        try:
            nodes = [
                {"name": node.name, "signs": node.key, "trusts": None if node.accepts is None else sorted(node.accepts)}
                for node in await nodes_keys(session.config)
            ]
        except Failure as failure:
            notes.append(f"What the nodes say can't be read: {failure}")
    cells = [[_shown(row.get(column)) for column in _COLUMNS] for row in rows]
    text = [table(["KEY", "USE", "UNTIL", "IN FORCE"], cells, spare=["IN FORCE", "UNTIL"])]
    if nodes:
        said = [[node["name"], node["signs"], _trusts(node["trusts"])] for node in nodes]
        text += ["", table(["NODE", "SIGNS WITH", "TRUSTS"], said)]
    text += ["", lines(notes)] if notes else []
    Output(as_json=arguments.json).document({"keys": rows, "nodes": nodes, "notes": notes}, "\n".join(text))
    return 0


_COLUMNS: Final = ("key", "use", "until", "in_force")


def _shown(value: object) -> object:
    return {True: "yes", False: "no", None: ""}.get(value, value) if value in (True, False, None) else value


def _trusts(keys: object) -> str:
    return "an earlier version: its own" if not isinstance(keys, list) else ", ".join(keys)
