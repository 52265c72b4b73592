"""Agents for a fleet: those that a file has from before, and new ones, enrolled as agents enrol themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import trio
from attrs import define

from wazuh_comms_trio.cli.arguments import is_uuid
from wazuh_comms_trio.cli.fleet.connection import ExchangeFailed, Node, Reply, exchange
from wazuh_comms_trio.cli.fleet.host import Member
from wazuh_comms_trio.cli.fleet.requests import Request, enrolment, session_request
from wazuh_comms_trio.cli.program import Failure
from wazuh_comms_trio.foundation.log_context import format_address

__all__ = ["Session", "append_members", "enrol", "read_members"]

#: Enrolments at a time: each costs the node a hash.
_AT_ONCE: Final = 8
#: Seconds that an enrolment may wait for its turn.
_LIMIT: Final = 60.0


def read_members(path: Path) -> list[Member]:
    """Reads agents from a file, one JSON object a line: ``uuid``, ``name``, ``key``. None where there is no such file.
    Raises ``Failure``, ``OSError``."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        raise Failure(f"{path}: isn't UTF-8") from None
    members = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found = json.loads(line)
            member = Member(found["uuid"], found["name"], found["key"])
            if not all(isinstance(each, str) for each in (member.uuid, member.name, member.key)):
                raise TypeError
        except (ValueError, LookupError, TypeError):
            raise Failure(f'{path}, line {number}: isn\'t an agent: {{"uuid": ..., "name": ..., "key": ...}}') from None
        if not is_uuid(member.uuid):
            raise Failure(f"{path}, line {number}: the uuid isn't one")
        members.append(member)
    return members


def append_members(path: Path, members: Sequence[Member]) -> None:
    """Appends agents to the file. Their keys are in it: nobody else may read it. Raises ``OSError``."""
    lines = [json.dumps({"uuid": each.uuid, "name": each.name, "key": each.key}) + "\n" for each in members]
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write("".join(lines))


@define
class Session:
    """A right to enrol: a token, and who can get another one (nobody: the token is what there is)."""

    node: Node
    token: str = ""
    user: str = ""
    password: str = ""

    async def log_in(self) -> None:
        """Gets a token. Raises ``Failure``."""
        reply = await _ask(self.node, session_request(self.node.host, self.user, self.password))
        if reply.status != 200:
            raise Failure(f"{self.user} may not enrol agents: {_said(reply)}")
        try:
            self.token = str(json.loads(reply.body)["data"]["token"])
        except (ValueError, LookupError, TypeError):
            raise Failure("the log-in to enrol was answered without a token") from None


async def enrol(
    session: Session, members: Sequence[Member], *, done: Callable[[Member], None], show: Callable[[str], None]
) -> None:
    """Enrols agents; ``done`` is called for each that is enrolled. Raises ``Failure`` at the first that isn't."""
    waiting = list(reversed(members))
    renewing = trio.Lock()

    async def work() -> None:
        while waiting:
            member = waiting.pop()
            token = session.token
            reply = await _ask(session.node, _enrolment(session, member))
            if reply.status == 401 and session.user:  # a session is short
                async with renewing:
                    if session.token == token:
                        await session.log_in()
                reply = await _ask(session.node, _enrolment(session, member))
            if reply.status != 201:
                raise Failure(f"{member.name} wasn't enrolled: {_said(reply)}")
            done(member)
            show(f"enrolled {len(members) - len(waiting)} of {len(members)} agents")

    if session.user and not session.token:
        await session.log_in()
    async with trio.open_nursery() as nursery:
        for _ in range(_AT_ONCE):
            nursery.start_soon(work)


def _enrolment(session: Session, member: Member) -> Request:
    return enrolment(session.node.host, session.token, member.uuid, member.name, member.key)


async def _ask(node: Node, request: Request) -> Reply:
    try:
        return await exchange(node, *request, time_limit=_LIMIT)
    except ExchangeFailed as error:
        raise Failure(f"https://{format_address((node.host, node.port))}, where agents are enrolled: {error}") from None


def _said(reply: Reply) -> str:
    """A refusal in words: ``401: Invalid credentials``"""
    try:
        found = json.loads(reply.body)
        text = found.get("detail") or found.get("message") or found.get("title") or ""
    except (ValueError, AttributeError):
        text = ""
    return f"{reply.status}: {text}" if text else f"status {reply.status}"
