"""Another key for the tokens, in two steps: all nodes trust it, then all nodes sign with it."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from wazuh_comms_trio.cli.command_socket import ask_daemon
from wazuh_comms_trio.cli.keys.node import keys_in_force, nodes_keys, signing_pem
from wazuh_comms_trio.cli.output import Output
from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.cli.stores import open_session
from wazuh_comms_trio.config.check import FileProblem, next_key_file, public_half
from wazuh_comms_trio.daemon.remembered_keys import LONGEST_GRACE, KeyMemory, node_folder
from wazuh_comms_trio.foundation.file_writes import rename, sync, write_all
from wazuh_comms_trio.foundation.folders import draft, remove_left_drafts, sync_folder
from wazuh_comms_trio.services.authentication.tokens import key_id

if TYPE_CHECKING:
    from wazuh_comms_trio.cli.stores import Session

__all__ = ["publish", "sign"]

_RELOAD_TIMEOUT: Final = 90.0
_RESTART: Final = "the daemon has one worker: restart it"


async def publish(arguments: Namespace) -> int:
    session = open_session(arguments)
    private = _private_key_file(session)
    following = next_key_file(private)
    signing = key_id(signing_pem(session.config.communications_api))
    given = None if arguments.key is None else _read(Path(arguments.key))
    if following.exists():
        there = _id_of(following, _read(following))
        if given is not None and _id_of(Path(arguments.key), given) != there:
            raise Failure(f"{following} is another key, {there}; remove it if it isn't to be the next one")
    else:
        data = _new_key() if given is None else given
        if _id_of(Path(arguments.key or following), data) == signing:
            raise Failure("that is the key that signs already")
        with session.acting_as_owner(session.audit.path.parent):
            session.prepare_change()
        _write_beside(private, following, data)
    kid = _id_of(following, _read(following))
    with session.acting_as_owner(session.audit.path.parent):
        session.changed("keys rotate publish", kid)
    said = _put_in_force(arguments)
    in_force = keys_in_force(arguments)
    if said is None and in_force is not None and kid not in in_force.accepted:
        raise Failure(f"the daemon doesn't trust {kid}: see its log")
    text = [
        f"{kid} is the next key, in {following}.",
        said or "This node trusts it.",
        "On every other node: copy the file there, and run `wazuh-comms keys rotate publish --key FILE`. When all of"
        " them trust the key, or where there is no other node, on every node: `wazuh-comms keys rotate sign`.",
    ]
    document = {"key": kid, "file": str(following), "in_force": said is None and in_force is not None}
    Output(as_json=arguments.json).document(document, "\n".join(text))
    return 0


async def sign(arguments: Namespace) -> int:
    session = open_session(arguments)
    api = session.config.communications_api
    private = _private_key_file(session)
    following = next_key_file(private)
    if not following.exists():
        raise Failure(f"there is no {following}: first, on every node, `wazuh-comms keys rotate publish`")
    kid = _id_of(following, _read(following))
    if not arguments.force:
        await _check_that_all_trust(arguments, session, kid)
    before = signing_pem(api)
    with session.acting_as_owner(session.audit.path.parent):
        session.prepare_change()
        # The nodes change one after the other: what they sign with the key before is good for a day.
        if not KeyMemory(node_folder(api)).keep(before.decode(), LONGEST_GRACE):
            raise Failure(f"{node_folder(api)} can't be written to: what the key before signed would be refused")
    rename(following, private)
    sync_folder(private.parent)
    with session.acting_as_owner(session.audit.path.parent):
        session.changed("keys rotate sign", kid, before=key_id(before))
    said = _put_in_force(arguments)
    in_force = keys_in_force(arguments)
    if said is None and in_force is not None and in_force.signing != kid:
        raise Failure(f"the daemon doesn't sign with {kid}: see its log")
    text = said or f"This node signs with {kid}. What {key_id(before)} signed is good for a day, unless you revoke it."
    document = {"key": kid, "before": key_id(before), "in_force": said is None and in_force is not None}
    Output(as_json=arguments.json).document(document, text)
    return 0


async def _check_that_all_trust(arguments: Namespace, session: Session, kid: str) -> None:
    """Raises ``Failure`` unless all nodes trust the new key."""
    in_force = await trio.to_thread.run_sync(keys_in_force, arguments)
    if in_force is not None and kid not in in_force.accepted:
        raise Failure(f"this node doesn't trust {kid} yet: `wazuh-comms keys rotate publish`, or reload it")
    if session.config.communications_api.backend != "wazuh":
        return
    try:
        nodes = await nodes_keys(session.config)
    except Failure as failure:
        raise Failure(f"whether the other nodes trust {kid} can't be known: {failure}; --force goes on") from failure
    behind = [node.name for node in nodes if node.accepts is None or kid not in node.accepts]
    if behind:
        raise Failure(
            f"these nodes don't trust {kid} yet, and would refuse its agents: {', '.join(behind)}; run `keys rotate "
            "publish --key FILE` there. A node that has stopped is forgotten after five minutes; --force goes on"
        )


def _private_key_file(session: Session) -> Path:
    private = session.config.communications_api.token.private_key
    if private is None:
        raise Failure(
            "token.private_key is unset: the TLS key signs, and changes with its certificate. Set token.private_key, to"
            " the same key on all nodes, to change keys apart from that"
        )
    return private


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(f"{file} can't be read: {error.strerror}") from error


def _id_of(file: Path, data: bytes) -> str:
    try:
        return key_id(public_half(data))
    except FileProblem as problem:
        raise Failure(f"{file} {problem}") from problem


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_beside(private: Path, following: Path, data: bytes) -> None:
    """Writes the new key beside the key that signs, with its owner, group and mode, less what others may. Raises
    ``OSError``."""
    status = private.stat()
    remove_left_drafts(following.parent, re.compile(rf"\.{re.escape(following.name)}-\d+"))
    path = following.with_name(f".{following.name}-{os.getpid()}")
    with draft(path) as descriptor:
        if os.geteuid() == 0:
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, status.st_mode & 0o770)
        write_all(descriptor, data)
        sync(descriptor)
        rename(path, following)
    sync_folder(following.parent)


def _put_in_force(arguments: Namespace) -> str | None:
    """Has the daemon sign with the new key; None once it does; else what is left to do. Raises ``Failure``."""
    if keys_in_force(arguments) is None:
        return "The daemon doesn't run: the key counts when it starts."
    outcome = ask_daemon(arguments, "POST", "/api/v1/reload", _RELOAD_TIMEOUT)
    if outcome["reloaded"]:
        return None
    if not outcome["problems"] or "restart" in " ".join(outcome["problems"]):
        return f"Not in force yet: {_RESTART}."
    raise Failure("\n".join(f"not reloaded: {problem}" for problem in outcome["problems"]))
